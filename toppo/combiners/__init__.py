"""Combiners: maps from the Gram of the per-task gradients to one weight per task. They need numpy and scipy only.

J (K, P) holds the per-task gradients g_i, one per row, and G = J J' is their Gram. The weights w make the direction
d = J'w.

>>> import numpy as np
>>> from toppo.combiners import make
>>> make("fairgrad:alpha=1").combine(np.diag([4.0, 1.0])).weights
array([0.5, 1. ])

`make` makes a combiner from its spec, a text such as "fairgrad:alpha=1" with its name and options. `Combiner.combine`
takes a Gram and returns a `Combination`. `register` and the entry-point group `toppo.combiners` add methods of your
own. Each method has a file of its own. The shared files are `base`, `gram` (checks), `geometry` (what a Gram says about
the tasks), `cone` (quadratic programs) and `registry`.
"""

from toppo.combiners.aligned_mtl import AlignedMTL
from toppo.combiners.base import Claims, Combination, Combinations, Combiner, DeadTasks, Record, Status
from toppo.combiners.cagrad import CAGrad
from toppo.combiners.conflict_free import ConFIG
from toppo.combiners.dual_cone import DualProj, UPGrad
from toppo.combiners.dwa import DWA
from toppo.combiners.errors import CombinerError, MissingPackageError
from toppo.combiners.fairgrad import FairGrad, kkt_residual
from toppo.combiners.fairgrad_paper import FairGradPaper
from toppo.combiners.famo import FAMO
from toppo.combiners.geometry import contributions, cosines, direction_norm, gradient_norms, mean_abs_cosine, spread
from toppo.combiners.gradvac import GradVac
from toppo.combiners.gram import alive_tasks, check_gram
from toppo.combiners.imtl_g import IMTLG
from toppo.combiners.invariance import Invariance, invariance, popart_scales
from toppo.combiners.linear import Mean, Sum
from toppo.combiners.mgda import MGDA
from toppo.combiners.nash_mtl import NashMTL
from toppo.combiners.pcgrad import PCGrad
from toppo.combiners.registry import make, names, parse_spec, register
from toppo.combiners.taskforce import TaskForce
from toppo.combiners.torchjd import TorchJD
from toppo.combiners.uncertainty import UncertaintyWeighting

__all__ = [
    "DWA",
    "FAMO",
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "CAGrad",
    "Claims",
    "Combination",
    "Combinations",
    "Combiner",
    "CombinerError",
    "ConFIG",
    "DeadTasks",
    "DualProj",
    "FairGrad",
    "FairGradPaper",
    "GradVac",
    "Invariance",
    "Mean",
    "MissingPackageError",
    "NashMTL",
    "PCGrad",
    "Record",
    "Status",
    "Sum",
    "TaskForce",
    "TorchJD",
    "UPGrad",
    "UncertaintyWeighting",
    "alive_tasks",
    "check_gram",
    "contributions",
    "cosines",
    "direction_norm",
    "gradient_norms",
    "invariance",
    "kkt_residual",
    "make",
    "mean_abs_cosine",
    "names",
    "parse_spec",
    "popart_scales",
    "register",
    "spread",
]
