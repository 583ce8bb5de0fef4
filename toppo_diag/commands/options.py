"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toppo_diag.errors import bad_option
from toppo_diag.request import Texts

if TYPE_CHECKING:
    from toppo.combiners import Combiner


def chosen_combiners(value: Texts) -> dict[str, Combiner]:
    """Combiners by their spec, that is, by name and options, such as "fairgrad:alpha=2".

    Args:
        value: specs, as a list or separated by commas or semicolons: "mean,fairgrad:alpha=2,mode=exact" are two. "all"
            is every combiner that needs no torch, with FairGrad at both alpha = 1 and alpha = 2.

    Raises:
        UsageError: no such combiner or option.
    """
    from toppo.combiners import make, names

    specs: list[str] = []
    for item in _specs(value):
        if item == "all":
            for name in names(torch_free=True):
                specs += ["fairgrad:alpha=1", "fairgrad:alpha=2"] if name == "fairgrad" else [name]
        else:
            specs.append(item)
    if not specs:
        raise bad_option("combiners", value, "names no combiner; give specs separated by commas, or all")
    try:
        made = {spec: make(spec) for spec in specs}
    except ValueError as error:
        raise bad_option("combiners", ",".join(specs), str(error)) from None
    # One name for one combiner: "fairgrad" and "fairgrad:alpha=1" are the same.
    return {combiner.spec if combiner.name == "fairgrad" else spec: combiner for spec, combiner in made.items()}


def _specs(value: Texts) -> list[str]:
    """The specs in a text or a list. After a comma, `key=value` belongs to the spec before it."""
    items = [value] if isinstance(value, (str, int, float)) else list(value or ())
    specs: list[str] = []
    for item in items:
        for part in str(item).split(";"):
            own: list[str] = []
            for piece in filter(None, (p.strip() for p in part.split(","))):
                goes_on = own and "=" in piece and ":" not in piece
                own = [*own[:-1], f"{own[-1]},{piece}"] if goes_on else [*own, piece]
            specs += own
    return specs
