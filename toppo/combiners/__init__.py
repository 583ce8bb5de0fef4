"""Combiners: maps from the Gram of the per-task gradients to one weight per task. numpy and scipy alone.

>>> import numpy as np
>>> from toppo.combiners import make
>>> make("fairgrad:alpha=1").combine(np.diag([4.0, 1.0])).weights
array([0.5, 1. ])

`make` builds a combiner from its spec, `Combiner.combine` is the one call that matters, `Combination` is what it gives
back. The files of this package are the methods, one each; what they share is in `base`, `gram` (checks), `geometry`
(what a Gram says) and `cone` (quadratic programs).
"""

from toppo.combiners.base import Claims, Combination, Combinations, Combiner, DeadTasks, Record, Status
from toppo.combiners.cagrad import CAGrad
from toppo.combiners.errors import CombinerError, MissingPackageError
from toppo.combiners.fairgrad import FairGrad, kkt_residual
from toppo.combiners.fairgrad_paper import FairGradPaper
from toppo.combiners.gram import check_gram
from toppo.combiners.invariance import Invariance, invariance, popart_scales
from toppo.combiners.pcgrad import PCGrad
from toppo.combiners.registry import make, names, parse_spec
from toppo.combiners.taskforce import TaskForce

__all__ = [
    "CAGrad",
    "Claims",
    "Combination",
    "Combinations",
    "Combiner",
    "CombinerError",
    "DeadTasks",
    "FairGrad",
    "FairGradPaper",
    "Invariance",
    "MissingPackageError",
    "PCGrad",
    "Record",
    "Status",
    "TaskForce",
    "check_gram",
    "invariance",
    "kkt_residual",
    "make",
    "names",
    "parse_spec",
    "popart_scales",
]
