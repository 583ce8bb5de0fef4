"""The number of parameters of a run's networks, counted from its configuration (Section B.3, Table B.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

OBSERVATION, ACTION = 39, 4
"""Numbers in an observation and in an action of Meta-World."""
_WIDTHS = (400, 400, 400)
"""Hidden layers of the paper, for a configuration that does not name any."""


def parameter_count(config: Mapping[str, Any], n_tasks: int) -> int:
    """Parameters that a run holds in memory while it trains, without the optimizer's state.

    These are the actor with its log-standard-deviations, the critic, and PopArt's affine layer.

    Args:
        config: hidden, layernorm and popart, as in config.toml.
        n_tasks: K, the length of the task's one-hot.
    """
    hidden: Sequence[int] = config.get("hidden", _WIDTHS)
    widths = (OBSERVATION + n_tasks, *hidden)
    layernorm = config["layernorm"]
    actor = _trunk(widths, layernorm == "both") + (widths[-1] + 1) * ACTION + n_tasks * ACTION
    critic = _trunk(widths, layernorm != "none") + widths[-1] + 1
    return actor + critic + (0 if config["popart"] == "off" else 2 * n_tasks)


def _trunk(widths: Sequence[int], layernorm: bool) -> int:
    """Parameters of the hidden layers. A layer has a bias, or with LayerNorm a scale and a shift instead."""
    return sum(into * out + (2 if layernorm else 1) * out for into, out in pairwise(widths))
