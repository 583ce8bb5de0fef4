"""What the other packages of toppo share: errors, whole-file writes, close names, a dask client, the end of `main`.

Nothing here knows a Gram, a dump or a trainer.
"""
