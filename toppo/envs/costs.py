"""What a step of each task costs, to share environments out evenly among workers."""

from __future__ import annotations

STEP_MICROSECONDS = {
    "assembly-v3": 359,
    "basketball-v3": 289,
    "bin-picking-v3": 300,
    "box-close-v3": 314,
    "button-press-topdown-v3": 212,
    "button-press-topdown-wall-v3": 218,
    "button-press-v3": 217,
    "button-press-wall-v3": 221,
    "coffee-button-v3": 256,
    "coffee-pull-v3": 681,
    "coffee-push-v3": 680,
    "dial-turn-v3": 241,
    "disassemble-v3": 335,
    "door-close-v3": 331,
    "door-lock-v3": 234,
    "door-open-v3": 344,
    "door-unlock-v3": 258,
    "hand-insert-v3": 559,
    "drawer-close-v3": 264,
    "drawer-open-v3": 227,
    "faucet-open-v3": 235,
    "faucet-close-v3": 237,
    "hammer-v3": 356,
    "handle-press-side-v3": 226,
    "handle-press-v3": 220,
    "handle-pull-side-v3": 257,
    "handle-pull-v3": 255,
    "lever-pull-v3": 335,
    "pick-place-wall-v3": 670,
    "pick-out-of-hole-v3": 289,
    "pick-place-v3": 630,
    "plate-slide-v3": 350,
    "plate-slide-side-v3": 329,
    "plate-slide-back-v3": 328,
    "plate-slide-back-side-v3": 330,
    "peg-insert-side-v3": 405,
    "peg-unplug-side-v3": 317,
    "soccer-v3": 656,
    "stick-push-v3": 731,
    "stick-pull-v3": 738,
    "push-v3": 656,
    "push-wall-v3": 690,
    "push-back-v3": 773,
    "reach-v3": 344,
    "reach-wall-v3": 334,
    "shelf-place-v3": 696,
    "sweep-into-v3": 712,
    "sweep-v3": 626,
    "window-open-v3": 237,
    "window-close-v3": 247,
}
"""CPU time of one step under random actions, metaworld 3.1.1 with mujoco 3.3.0, one core of an AMD EPYC at 2.6 GHz.
Only the ratios matter.
"""

_TYPICAL = 340.0


def step_cost(task: str) -> float:
    """Relative cost of one environment step of a task; a typical one for a task that was never measured."""
    return STEP_MICROSECONDS.get(task, _TYPICAL)
