"""Early, mid and late: which snapshot of a dump a stage means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

STAGES = ("early", "mid", "late")


def stage_snapshots(env_steps: Int[np.ndarray, "S"], stages: Sequence[str] = STAGES) -> dict[str, int]:
    """Snapshot index of each stage: the first, the middle and the last of the dump (Section D.2 of the paper).

    Args:
        env_steps: of the committed snapshots, increasing.
        stages: out of `STAGES`.

    Returns:
        Stage to snapshot index, in the order asked for; stages that fall on a snapshot already taken are left out.

    Raises:
        ValueError: an unknown stage, or a dump without snapshots.
    """
    if not len(env_steps):
        raise ValueError("the dump has no committed snapshot yet")
    index = {"early": 0, "mid": (len(env_steps) - 1) // 2, "late": len(env_steps) - 1}
    taken: dict[str, int] = {}
    for stage in stages:
        if stage not in index:
            raise ValueError(f"unknown stage {stage!r}: give {', '.join(STAGES)}")
        if index[stage] not in taken.values():
            taken[stage] = index[stage]
    return taken
