"""Options that several commands have of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toppo_diag.errors import UsageError

if TYPE_CHECKING:
    from toppo.combiners import Combiner

Combiners = Annotated[
    str, typer.Option(help="Specs separated by ';', as 'mean;cagrad:c=0.4', or all.", metavar="SPEC;...|all")
]

PUBLISHED = "figures/published"
PublishedIn = Annotated[str, typer.Option(help="Directory of the paper's numbers.", metavar="DIR")]


def chosen_combiners(text: str) -> dict[str, Combiner]:
    """Spec to combiner; "all" is every one that needs no torch (name the others), FairGrad at alpha 1 and 2.

    Raises:
        UsageError: no such combiner or option.
    """
    from toppo.combiners import make, names

    specs: list[str] = []
    for item in text.split(";"):
        if item.strip() == "all":
            for name in names(torch_free=True):
                specs += ["fairgrad:alpha=1", "fairgrad:alpha=2"] if name == "fairgrad" else [name]
        elif item.strip():
            specs.append(item.strip())
    if not specs:
        raise UsageError(f"--combiners {text!r}: names no combiner; give specs separated by ';', or all")
    try:
        made = {spec: make(spec) for spec in specs}
    except ValueError as error:
        raise UsageError(f"--combiners: {error}") from None
    # One name for one combiner: "fairgrad" and "fairgrad:alpha=1" are the same.
    return {combiner.spec if combiner.name == "fairgrad" else spec: combiner for spec, combiner in made.items()}
