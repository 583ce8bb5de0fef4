"""The Gram stream of a run with PopArt, with PopArt's rescaling taken back.

The stream holds no sigma. The log of the run has it for every collect (rollout phase).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from toppo.common.errors import ToppoError
from toppo.common.jsonl import parse
from toppo.dump import Dump, run_logs
from toppo_diag.analysis.scale import without_popart
from toppo_diag.reading.conditions import raw
from toppo_diag.reading.dumps import Grams, read_grams, read_stream
from toppo_diag.request import Request

_LOG = "progress.jsonl"


def raw_stream(dump: Dump, side: str, request: Request) -> tuple[Grams, list[str]]:
    """The Grams of `read_stream` that the loss without PopArt would have given with the same network weights.

    Returns:
        The Grams. If sigma is not logged for every collect, these are those of the snapshots, which hold their sigma.
        Then a note says so.
    """
    grams = read_stream(dump, side, request)
    if "popart_sigma" in grams.beside:
        return raw(grams), []
    sigma = _logged_sigma(dump, grams.tasks)
    if not set(grams.env_steps.tolist()) <= sigma.keys():
        note = f"{dump.path}: has no log of PopArt's sigma for every collect, so the figure shows its snapshots"
        return raw(read_grams(dump, side, request)), [note]
    each = np.stack([sigma[step] for step in grams.env_steps.tolist()])
    return replace(grams, values=without_popart(grams.values, each)), []


def _logged_sigma(dump: Dump, tasks: tuple[str, ...]) -> dict[int, Float[np.ndarray, "K"]]:
    """PopArt's sigma of each task, by the steps of the collect; {} where the run's log is missing or damaged."""
    try:
        lines = parse(run_logs(dump.path).get(_LOG, ""), f"{dump.path}: {_LOG}", ("env_steps", "tasks")).lines
        return {line["env_steps"]: np.array([line["tasks"][task]["popart_sigma"] for task in tasks]) for line in lines}
    except (ToppoError, KeyError, TypeError):
        return {}
