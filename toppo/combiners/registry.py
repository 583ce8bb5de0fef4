"""Combiners by name: `make("fairgrad:alpha=1")`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from toppo.combiners.aligned_mtl import AlignedMTL
from toppo.combiners.base import Combiner, option_fields
from toppo.combiners.cagrad import CAGrad
from toppo.combiners.conflict_free import ConFIG
from toppo.combiners.dual_cone import DualProj, UPGrad
from toppo.combiners.dwa import DWA
from toppo.combiners.fairgrad import FairGrad
from toppo.combiners.fairgrad_paper import FairGradPaper
from toppo.combiners.famo import FAMO
from toppo.combiners.gradvac import GradVac
from toppo.combiners.imtl_g import IMTLG
from toppo.combiners.linear import Mean, Sum
from toppo.combiners.mgda import MGDA
from toppo.combiners.nash_mtl import NashMTL
from toppo.combiners.pcgrad import PCGrad
from toppo.combiners.taskforce import TaskForce
from toppo.combiners.torchjd import TorchJD
from toppo.combiners.uncertainty import UncertaintyWeighting

_COMBINERS: dict[str, type[Combiner]] = {
    kind.name: kind
    for kind in (
        Mean,
        Sum,
        FairGrad,
        FairGradPaper,
        PCGrad,
        CAGrad,
        MGDA,
        IMTLG,
        NashMTL,
        AlignedMTL,
        UPGrad,
        DualProj,
        GradVac,
        ConFIG,
        DWA,
        UncertaintyWeighting,
        FAMO,
        TaskForce,
        TorchJD,
    )
}


def names(*, torch_free: bool = False) -> list[str]:
    """Every name `make` knows, or those whose methods need no torch."""
    return [name for name, kind in _COMBINERS.items() if not (torch_free and kind.needs_torch)]


def parse_spec(spec: str) -> tuple[type[Combiner], dict[str, Any]]:
    """Read `name[:key=value[,key=value]...]` into a combiner's class and its typed options, without making one.

    Raises:
        ValueError: an unknown name or option (the closest known one is named), or a value of the wrong type.
    """
    name, _, rest = spec.strip().partition(":")
    if name not in _COMBINERS:
        raise ValueError(f"unknown combiner {name!r}{_closest(name, names())}")
    kind = _COMBINERS[name]
    hints = get_type_hints(kind)
    types = {f.name: hints[f.name] for f in option_fields(kind)}
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, text = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"{name}: an option is written key=value, not {item!r}")
        if key not in types:
            raise ValueError(f"{name} has no option {key!r}{_closest(key, types)}")
        if key in options:
            raise ValueError(f"{name}: option {key!r} is given twice")
        options[key] = _read(f"{name}: {key}", types[key], text)
    return kind, options


def make(spec: str) -> Combiner:
    """A new combiner from its spec, e.g. `mean`, `fairgrad:alpha=2`, `pcgrad:reduction=sum`.

    Raises:
        ValueError: as `parse_spec`, or an option's value is out of range.
    """
    kind, options = parse_spec(spec)
    return kind(**options)


def _read(label: str, hint: Any, text: str) -> Any:
    """One option's value as its field's type."""
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError(f"{label} is one of {', '.join(get_args(hint))}, not {text!r}")
        return text
    try:
        return hint(text)
    except ValueError:
        raise ValueError(f"{label} takes {'an integer' if hint is int else 'a number'}, not {text!r}") from None


def _closest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    if not known:
        return "; it takes none"
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
    return f"; did you mean {near[0]!r}? (known: {', '.join(known)})"
