"""The names of tasks in figures, and the formats of figures. Needs no matplotlib."""

from __future__ import annotations

from toppo_diag.analysis.tasks import short

FORMATS = ("pdf", "png", "svg")
"""File formats of a saved figure."""

METAWORLD = (
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "window-close",
    "assembly",
    "basketball",
    "bin-picking",
    "box-close",
    "button-press-topdown-wall",
    "button-press",
    "button-press-wall",
    "coffee-button",
    "coffee-pull",
    "coffee-push",
    "dial-turn",
    "disassemble",
    "door-close",
    "door-lock",
    "door-unlock",
    "hand-insert",
    "faucet-open",
    "faucet-close",
    "hammer",
    "handle-press-side",
    "handle-press",
    "handle-pull-side",
    "handle-pull",
    "lever-pull",
    "pick-place-wall",
    "pick-out-of-hole",
    "plate-slide",
    "plate-slide-side",
    "plate-slide-back",
    "plate-slide-back-side",
    "peg-unplug-side",
    "soccer",
    "stick-push",
    "stick-pull",
    "push-wall",
    "push-back",
    "reach-wall",
    "shelf-place",
    "sweep-into",
    "sweep",
)
"""The tasks of MT10, then the other tasks of MT50, without version. The place in this list fixes a task's colour."""

__all__ = ["FORMATS", "METAWORLD", "short"]
