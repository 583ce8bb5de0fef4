"""The state that a recorder carries from step to step, for a checkpoint of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from toppo.capture.errors import CaptureError
from toppo.combiners import Combiner, CombinerError


def saved(next_step: int | None, orders: np.random.Generator, combiners: Mapping[str, Combiner]) -> dict[str, Any]:
    """The state in values that `torch.load(weights_only=True)` reads.

    Args:
        next_step: number of the step that a resumed run begins with; None before the first.
        orders: the source of random orders.
        combiners: side -> what decides its step.
    """
    states = {side: combiner.state() for side, combiner in combiners.items()}
    return {
        "step": next_step,
        "orders": orders.bit_generator.state,
        "combiners": {side: {name: torch.as_tensor(a) for name, a in state.items()} for side, state in states.items()},
    }


def restore(state: Mapping[str, Any], orders: np.random.Generator, combiners: Mapping[str, Combiner]) -> int | None:
    """Put a saved state into a generator and combiners, or change none of them. Return the next step.

    Args:
        state: what `saved` returned.
        orders: the source of random orders.
        combiners: side -> what decides its step.

    Raises:
        CaptureError: this is not what `saved` returned for these sides.
        CombinerError: the state belongs to another method.
    """
    try:
        step, generator = state["step"], state["orders"]
        arrays = {side: {name: a.cpu().numpy() for name, a in own.items()} for side, own in state["combiners"].items()}
        if step is not None and (type(step) is not int or step < 0):
            raise ValueError("no number of a step")
        type(orders.bit_generator)().state = generator  # raises if it is none
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CaptureError("this is not the state of a recorder; give what `recorder.state_dict()` returned") from error
    if arrays.keys() != combiners.keys():
        there, here = (", ".join(sides) or "no side" for sides in (arrays, combiners))
        raise CaptureError(
            f"the state has combiners of {there}, and this recorder has combiners of {here}; "
            "give `toppo.record` the same `combiner` and `sides` as in the run before"
        )
    before = {side: combiner.state() for side, combiner in combiners.items()}
    try:
        for side, combiner in combiners.items():
            combiner.restore(arrays[side])
    except CombinerError:
        for side, combiner in combiners.items():
            combiner.restore(before[side])
        raise
    orders.bit_generator.state = generator
    return step
