"""Sweeps: every rung (variant of the method) on every benchmark with every seed.

`start` has the functions that users call. `plan` reads the file of a sweep, and `jobs` trains its runs.
"""
