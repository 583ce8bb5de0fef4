"""What several rooms share: errors, whole-file writes, the closest name, a dask client, the shape of `main`.

Nothing here knows a Gram, a dump or a trainer.
"""
