"""CPU time of one step of each task. With these times, all workers start with equal shares of the work."""

from __future__ import annotations

STEP_MICROSECONDS = {
    "assembly-v3": 364,
    "basketball-v3": 148,
    "bin-picking-v3": 176,
    "box-close-v3": 245,
    "button-press-topdown-v3": 110,
    "button-press-topdown-wall-v3": 125,
    "button-press-v3": 126,
    "button-press-wall-v3": 112,
    "coffee-button-v3": 188,
    "coffee-pull-v3": 194,
    "coffee-push-v3": 191,
    "dial-turn-v3": 148,
    "disassemble-v3": 234,
    "door-close-v3": 141,
    "door-lock-v3": 135,
    "door-open-v3": 157,
    "door-unlock-v3": 126,
    "hand-insert-v3": 163,
    "drawer-close-v3": 140,
    "drawer-open-v3": 122,
    "faucet-open-v3": 138,
    "faucet-close-v3": 125,
    "hammer-v3": 228,
    "handle-press-side-v3": 109,
    "handle-press-v3": 115,
    "handle-pull-side-v3": 138,
    "handle-pull-v3": 136,
    "lever-pull-v3": 118,
    "pick-place-wall-v3": 168,
    "pick-out-of-hole-v3": 162,
    "pick-place-v3": 161,
    "plate-slide-v3": 123,
    "plate-slide-side-v3": 116,
    "plate-slide-back-v3": 120,
    "plate-slide-back-side-v3": 119,
    "peg-insert-side-v3": 173,
    "peg-unplug-side-v3": 188,
    "soccer-v3": 168,
    "stick-push-v3": 224,
    "stick-pull-v3": 236,
    "push-v3": 159,
    "push-wall-v3": 189,
    "push-back-v3": 170,
    "reach-v3": 130,
    "reach-wall-v3": 133,
    "shelf-place-v3": 181,
    "sweep-into-v3": 161,
    "sweep-v3": 170,
    "window-open-v3": 115,
    "window-close-v3": 146,
}
"""CPU time of one accelerated step of each task under random actions, plus 1/500 of a reset. Only the ratios matter.

Measured with metaworld 3.1.1 and mujoco 3.3.0 on one core of an AMD EPYC at 2.6 GHz
(`python -m tests.benchmarks.bench_envs --costs`).
"""

ACTING = 25
"""CPU time of one row of a policy call with five rows, in microseconds; the same for every task.

Measured values are 11 with the weights in the caches, and 20 to 45 after the environments have displaced the weights.
"""

TYPICAL = 160
"""CPU time in microseconds that is assumed for a task that was never measured."""


def step_cost(task: str) -> float:
    """Relative cost of one environment step of a task, including the policy call."""
    return STEP_MICROSECONDS.get(task, TYPICAL) + ACTING
