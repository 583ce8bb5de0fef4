"""The dump store: what a run records about its per-task gradients, in one Zarr v3 store per run.

A store holds the gradients J (K, P) of each side (a named group of shared parameters), their Grams G = J J', and
further numbers of your own, for K tasks and P parameters. What is recorded at one time is a snapshot. It holds one or
more minibatches. This package needs numpy and zarr, and knows neither torch nor the trainer.

A training loop of any kind records with `DumpWriter`. `open_dump` reads, also while the loop still runs:

>>> import tempfile
>>> import numpy as np
>>> from toppo.dump import DumpWriter, open_dump, verify
>>> folder = tempfile.TemporaryDirectory()
>>> J = np.array([[3, 0], [1, 4]], dtype=np.float32)  # one row per task
>>> with DumpWriter.create(f"{folder.name}/run1.zarr", tasks=["reach", "push"], sides={"trunk": 2}) as writer:
...     for step in range(5):
...         writer.record(step=step, trunk=J, loss=[1.0, 0.5 * step])
>>> dump = open_dump(f"{folder.name}/run1.zarr")
>>> dump.tasks, dump.n_snapshots, "loss" in dump
(('reach', 'push'), 5, True)
>>> dump["trunk_gram"].isel(snapshot=-1, minibatch=0).values
array([[ 9.,  3.],
       [ 3., 17.]])
>>> dump["loss"].sel(snapshot=4, minibatch=0, task="push").item()
2.0
>>> verify(dump).ok
True
>>> folder.cleanup()

`export` makes one portable HDF5 file of a dump, `describe` says what is in it, and `run_logs` gives the configuration
and the logs of its run.
"""

from toppo.dump.archive import export
from toppo.dump.description import describe
from toppo.dump.errors import DumpError, DumpNotFoundError, DumpWriteError
from toppo.dump.logs import config_differences, run_logs
from toppo.dump.numerics import gram, worst_k
from toppo.dump.opening import open_dump
from toppo.dump.reader import Dump
from toppo.dump.schema import ENV_STEPS, ParameterSlice, ScalarSpec, StepAxis
from toppo.dump.verification import Damage, Report, verify
from toppo.dump.writer import DumpWriter

__all__ = [
    "ENV_STEPS",
    "Damage",
    "Dump",
    "DumpError",
    "DumpNotFoundError",
    "DumpWriteError",
    "DumpWriter",
    "ParameterSlice",
    "Report",
    "ScalarSpec",
    "StepAxis",
    "config_differences",
    "describe",
    "export",
    "gram",
    "open_dump",
    "run_logs",
    "verify",
    "worst_k",
]
