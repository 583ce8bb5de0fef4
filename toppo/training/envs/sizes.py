"""The sizes of Meta-World. They are here so that the configuration and the help texts need not import Meta-World."""

from __future__ import annotations

OBS_DIM = 39
"""Numbers in an observation, without the task's one-hot."""
ACTION_DIM = 4
"""Numbers in an action."""
HORIZON = 500
"""Steps of an episode. Every episode ends there, by truncation."""
N_GOALS = 50
"""Goals of each task."""
BENCHMARK_SIZES = {"MT10": 10, "MT25": 25, "MT50": 50}
"""Tasks of each benchmark, K."""
