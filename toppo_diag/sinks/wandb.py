"""Scalars as a run of Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from toppo.combiners.scalars import tag
from toppo_diag.errors import DiagnosticError
from toppo_diag.output import Row


def write(rows: Sequence[Row], axis: str, stem: Path) -> Path:
    """Log one run with the name of `stem`, and keep its files beside it.

    W&B's own variables decide the rest: WANDB_MODE=offline sends nothing, WANDB_PROJECT chooses a project other than
    "toppo".

    Raises:
        DiagnosticError: W&B refused.
    """
    import wandb

    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "toppo"),
            name=stem.name,
            dir=str(stem.parent),
            settings=wandb.Settings(silent=True),
        )
        run.define_metric(axis)
        run.define_metric("*", step_metric=axis)
        for step, at in groupby(sorted(rows, key=lambda row: row["step"]), key=lambda row: row["step"]):
            run.log({axis: step} | {tag(row["side"], row["name"], row["task"]): row["value"] for row in at})
        where = Path(run.dir).parent
        run.finish()
    except wandb.Error as error:
        problem = " ".join(str(error).split())
        raise DiagnosticError(f"W&B refused: {problem}; log in by `wandb login`, or set WANDB_MODE=offline") from None
    return where
