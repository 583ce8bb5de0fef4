"""toppo: the microscope for multi-task gradients, and a trainer (TOPPO) for Meta-World.

A multi-task network has one gradient per task. `toppo` records them while any training loop runs (`record`, or
`DumpWriter` for gradients of your own), combines them into one direction (`make`), and reads the records
(`open_dump`). It also trains multi-task PPO with these parts (`train`). The package `toppo_diag` draws and checks what
was recorded.

>>> import numpy as np
>>> import toppo
>>> G = np.diag([4.0, 1.0])  # the Gram of two tasks' gradients
>>> toppo.make("fairgrad:alpha=1").combine(G).weights
array([0.5, 1. ])

Names are loaded when they are first used. The import itself needs neither torch nor zarr nor scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toppo.capture.recorder import Recorder, record
    from toppo.combiners import (
        DWA,
        FAMO,
        IMTLG,
        MGDA,
        AlignedMTL,
        CAGrad,
        Combiner,
        ConFIG,
        DualProj,
        FairGrad,
        FairGradPaper,
        GradVac,
        Mean,
        NashMTL,
        PCGrad,
        Sum,
        TaskForce,
        TorchJD,
        UncertaintyWeighting,
        UPGrad,
        make,
        register,
    )
    from toppo.common.errors import ToppoError, UsageError
    from toppo.dump import Dump, DumpError, DumpNotFoundError, DumpWriter, export, open_dump, verify
    from toppo.training.config import TrainConfig
    from toppo.training.errors import Interrupted
    from toppo.training.run.directory import Run
    from toppo.training.run.start import estimate, evaluate, parameter_counts, resume, train
    from toppo.training.sweep.start import sweep

    __version__: str

__all__ = [
    "DWA",
    "FAMO",
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "CAGrad",
    "Combiner",
    "ConFIG",
    "DualProj",
    "Dump",
    "DumpError",
    "DumpNotFoundError",
    "DumpWriter",
    "FairGrad",
    "FairGradPaper",
    "GradVac",
    "Interrupted",
    "Mean",
    "NashMTL",
    "PCGrad",
    "Recorder",
    "Run",
    "Sum",
    "TaskForce",
    "ToppoError",
    "TorchJD",
    "TrainConfig",
    "UPGrad",
    "UncertaintyWeighting",
    "UsageError",
    "__version__",
    "estimate",
    "evaluate",
    "export",
    "make",
    "open_dump",
    "parameter_counts",
    "record",
    "register",
    "resume",
    "sweep",
    "train",
    "verify",
]

_HOMES = {
    **dict.fromkeys(("Recorder", "record"), "toppo.capture.recorder"),
    **dict.fromkeys(("ToppoError", "UsageError"), "toppo.common.errors"),
    **dict.fromkeys(
        ("Dump", "DumpError", "DumpNotFoundError", "DumpWriter", "export", "open_dump", "verify"), "toppo.dump"
    ),
    "TrainConfig": "toppo.training.config",
    "Interrupted": "toppo.training.errors",
    "Run": "toppo.training.run.directory",
    **dict.fromkeys(("estimate", "evaluate", "parameter_counts", "resume", "train"), "toppo.training.run.start"),
    "sweep": "toppo.training.sweep.start",
}
"""Where each name is defined. All others in `__all__` are in toppo.combiners."""


if not TYPE_CHECKING:  # a type checker would conclude from `__getattr__` that every name exists

    def __getattr__(name: str) -> Any:
        """The public name, imported on its first use (PEP 562)."""
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("toppo")
        elif name in __all__:
            value = getattr(importlib.import_module(_HOMES.get(name, "toppo.combiners")), name)
        else:
            raise AttributeError(f"module 'toppo' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
