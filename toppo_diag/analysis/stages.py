"""Choosing snapshots of a dump by stage, by index or by environment steps.

A snapshot is everything that is dumped at one collect (rollout phase). A stage is the early, mid or late snapshot of a
dump. In a run that reaches the paper's stages, it is the snapshot nearest to the paper's steps. In a shorter run it is
the first, the middle or the last snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

PAPER_STAGES = {"early": 500_000, "mid": 4_500_000, "late": 7_500_000}
"""Environment steps of the paper's stages (Figure D.2)."""
STAGES = tuple(PAPER_STAGES)


def reaches_paper_stages(env_steps: Int[np.ndarray, "S"]) -> bool:
    """Whether a dump reaches the paper's stages.

    It does if its last snapshot is at 7.5 million environment steps or later, and three different snapshots are nearest
    to the paper's steps.
    """
    nearest = {_nearest(env_steps, step) for step in PAPER_STAGES.values()}
    return bool(len(env_steps) and env_steps[-1] >= PAPER_STAGES["late"] and len(nearest) == len(PAPER_STAGES))


def stage_snapshots(
    env_steps: Int[np.ndarray, "S"], stages: Sequence[str] = STAGES, *, paper: bool = True
) -> dict[str, int]:
    """Index of the snapshot of each stage (Section D.2).

    In a dump that reaches the paper's stages, these are the snapshots nearest to 0.5, 4.5 and 7.5 million steps. In
    other dumps they are the first, the middle and the last one.

    Args:
        env_steps: of the committed snapshots, increasing.
        stages: out of `STAGES`.
        paper: whether the steps are environment steps, as the paper's stages are. Other steps have no such stages.

    Returns:
        Snapshot index by stage, in the given order. A stage is left out if its snapshot already belongs to another
        one.

    Raises:
        ValueError: an unknown stage, or a dump without snapshots.
    """
    if not len(env_steps):
        raise ValueError("the dump has no committed snapshot yet")
    if paper and reaches_paper_stages(env_steps):
        index = {stage: _nearest(env_steps, step) for stage, step in PAPER_STAGES.items()}
    else:
        index = {"early": 0, "mid": (len(env_steps) - 1) // 2, "late": len(env_steps) - 1}
    taken: dict[str, int] = {}
    for stage in stages:
        if stage not in index:
            raise ValueError(f"unknown stage {stage!r}: give {', '.join(STAGES)}")
        if index[stage] not in taken.values():
            taken[stage] = index[stage]
    return taken


def choose_snapshots(
    env_steps: Int[np.ndarray, "S"],
    stage: Sequence[str] = (),
    snapshot: Sequence[str] = (),
    steps: Sequence[str] = (),
    *,
    paper: bool = True,
) -> dict[int, str]:
    """The chosen snapshots, each once. Without a choice these are all snapshots.

    At most one of `stage`, `snapshot` and `steps` is given.

    Args:
        env_steps: of the committed snapshots, increasing.
        stage: out of `STAGES`.
        snapshot: indices "3", "-1", or ranges "2:5" with both ends.
        steps: environment steps, for the nearest snapshot, or ranges "1000000:4000000", for all snapshots within.
        paper: see `stage_snapshots`.

    Returns:
        Label by snapshot index, in the given order.

    Raises:
        ValueError: an unknown stage, an index out of range, a text that is not a number, or a range without snapshots.
    """
    if stage:
        return {s: name for name, s in stage_snapshots(env_steps, stage, paper=paper).items()}
    if snapshot:
        found = [s for item in snapshot for s in _at_index(len(env_steps), item)]
    elif steps:
        found = [s for item in steps for s in _at_steps(env_steps, item)]
    else:
        found = list(range(len(env_steps)))
    return {s: f"snapshot {s}" for s in found}


def _at_index(n: int, item: str) -> Iterator[int]:
    ends = [_number(part) for part in item.split(":")]
    if len(ends) > 2 or not all(-n <= end < n for end in ends):
        raise ValueError(f"has no snapshot {_shown(item)}: it holds {n} snapshots, counted from 0")
    ends = [end % n for end in ends]
    if ends[0] > ends[-1]:
        raise ValueError(f"{item} holds no snapshot: a range goes from the earlier to the later one, as 2:5")
    yield from range(ends[0], ends[-1] + 1)


def _at_steps(env_steps: Int[np.ndarray, "S"], item: str) -> Iterator[int]:
    ends = [_number(part) for part in item.split(":")]
    if len(ends) == 1:
        yield _nearest(env_steps, ends[0])
        return
    within = [s for s, steps in enumerate(env_steps.tolist()) if ends[0] <= steps <= ends[-1]]
    if len(ends) > 2 or not within:
        held = f"{env_steps[0]:,} to {env_steps[-1]:,}"
        raise ValueError(f"has no snapshot within steps {_shown(item)}: it holds snapshots at {held}")
    yield from within


def _nearest(env_steps: Int[np.ndarray, "S"], step: int) -> int:
    # in Python's integers: a number of steps may be greater than an int64
    return min(range(len(env_steps)), key=lambda s: abs(int(env_steps[s]) - step), default=0)


def _number(text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"{_shown(text)!r} is not a whole number; give snapshots or steps such as 3 or 3:7") from None


def _shown(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
