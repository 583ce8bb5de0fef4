"""Sweeps: every rung on every benchmark with every seed. `start` runs one; `plan` reads its file; `jobs` trains."""
