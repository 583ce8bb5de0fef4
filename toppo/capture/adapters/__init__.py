"""Adapters: the few lines that record in somebody else's training loop. One file for each library.

Each library is an optional extra, and only the adapter's own file imports it. `jax` needs no torch.
"""
