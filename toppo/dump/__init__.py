"""The dump store: per-task gradients, their Grams and what goes with them, one Zarr v3 store per run.

It knows nothing of PPO, torch or the trainer. A run records with `DumpWriter`, anything reads with `open_dump`;
`verify` checks a dump against itself, `export` makes one portable HDF5 file of it, `describe` says what is in it,
`run_logs` gives the configuration and logs of its run.
"""

from toppo.dump.archive import export
from toppo.dump.description import describe
from toppo.dump.logs import run_logs, worst_k
from toppo.dump.numerics import gram
from toppo.dump.reader import Dump, open_dump
from toppo.dump.schema import DumpError, ParameterSlice, ScalarSpec
from toppo.dump.verification import Damage, Report, verify
from toppo.dump.writer import DumpWriter

__all__ = [
    "Damage",
    "Dump",
    "DumpError",
    "DumpWriter",
    "ParameterSlice",
    "Report",
    "ScalarSpec",
    "describe",
    "export",
    "gram",
    "open_dump",
    "run_logs",
    "verify",
    "worst_k",
]
