"""The numbers of the page, in the form in which it carries them: JSON, with arrays as float32 in base64."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toppo_diag.analysis.overview import RECORDED, Overview, SeedTotal
from toppo_diag.analysis.recorded import RunRecord
from toppo_diag.analysis.tasks import short
from toppo_diag.plots.colours import TASK_COLOURS
from toppo_diag.reporting.text import printable
from toppo_diag.request import file_part


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        name: how the page calls them.
        members: indices of the runs.
        totals: mean and standard error over the seeds.
    """

    name: str
    members: tuple[int, ...]
    totals: Sequence[SeedTotal]


def payload(
    runs: Sequence[RunRecord],
    views: Sequence[Overview],
    tasks: Sequence[str],
    groups: Sequence[Group],
    follow: float | None,
) -> dict[str, Any]:
    """Everything that the page's script draws.

    Args:
        runs: what each run recorded.
        views: the numbers of each run.
        tasks: those that the views show.
        groups: runs to be drawn as mean and interval.
        follow: seconds after which the page looks for news; None if it does not.
    """
    sides = [cube.side for view in views for cube in view.cubes]
    return {
        "tasks": [printable(short(task)) for task in tasks],
        "recorded": RECORDED,
        "colours": TASK_COLOURS,
        "defaultSide": "critic" if "critic" in sides else (sides[-1] if sides else ""),
        "stepColumn": runs[0].step_name,
        "follow": follow,
        "runs": [_run(run, view) for run, view in zip(runs, views, strict=True)],
        "groups": [
            {
                "name": printable(group.name),
                "members": list(group.members),
                "totals": [
                    {
                        "side": t.side,
                        "name": t.name,
                        "steps": t.steps.tolist(),
                        "mean": packed(t.mean),
                        "sem": packed(t.sem),
                    }
                    for t in group.totals
                ],
            }
            for group in groups
        ],
    }


def _run(run: RunRecord, view: Overview) -> Mapping[str, Any]:
    return {
        "name": printable(run.name),
        "file": file_part(run.name),
        "quoted": printable(shlex.quote(run.path)),
        "step": printable(run.step_label),
        "cubes": [
            {
                "side": cube.side,
                "condition": cube.condition,
                "layer": None if cube.layer is None else printable(cube.layer),
                "steps": cube.steps.tolist(),
                "pairs": cube.cosines.shape[1],
                "cosines": packed(cube.cosines),
                "low": None if cube.low is None else packed_cosines(cube.low),
                "high": None if cube.high is None else packed_cosines(cube.high),
                "norms": packed(cube.norms),
            }
            for cube in view.cubes
        ],
        "lines": [
            {
                "view": line.view,
                "side": line.side,
                "name": printable(line.name),
                "steps": line.steps.tolist(),
                "values": packed(line.values),
            }
            for line in view.lines
        ],
        "totals": [
            {"side": total.side, "name": total.name, "steps": total.steps.tolist(), "values": packed(total.values)}
            for total in view.totals
        ],
        "layers": [
            {
                "side": m.side,
                "names": [printable(name) for name in m.names],
                "steps": m.steps.tolist(),
                "conflict": packed(m.conflict),
            }
            for m in view.layers
        ],
    }


def packed(values: np.ndarray) -> str:
    """An array as float32 in base64, little endian, in C order."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def packed_cosines(values: np.ndarray) -> str:
    """Cosines as int16 in base64, little endian, in C order: 32,767 for 1, and -32,768 for NaN."""
    whole = np.where(np.isnan(values), -32768, np.round(np.clip(np.nan_to_num(values), -1, 1) * 32767))
    return base64.b64encode(np.ascontiguousarray(whole, dtype="<i2").tobytes()).decode("ascii")


def embedded(content: Any) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
