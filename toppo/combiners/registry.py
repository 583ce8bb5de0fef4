"""Combiners by name, such as `make("fairgrad:alpha=1")`, and the registration of further combiners.

A name belongs to a built-in method, to a class that `register` added in this process, or to an installed package. A
package lists its classes in the entry-point group `toppo.combiners`:

    [project.entry-points."toppo.combiners"]
    my-method = "my_package.module:MyMethod"

The first call of `make`, `parse_spec` or `names` looks for such packages. A class is imported only when its name is
asked for, or when `names` must know whether it needs torch.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

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
from toppo.common.errors import UsageError, unknown
from toppo.common.names import suggestion

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "toppo.combiners"
"""The entry-point group in which packages list their combiners."""

_BUILT_IN: dict[str, type[Combiner]] = {
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
_registered: dict[str, type[Combiner]] = {}
"""Classes that `register` added in this process, by name."""
_loaded: dict[str, type[Combiner]] = {}
"""Classes that were imported from packages so far, by name."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_OPTION_TYPES = {float: "a number", int: "an integer", bool: "true or false", str: "text"}

Kind = TypeVar("Kind", bound=type[Combiner])


def names(*, torch_free: bool = False) -> list[str]:
    """Every name that `make` knows: built-in methods first, then registered classes, then those of packages.

    Args:
        torch_free: leave out methods that need torch. This imports the classes of packages.

    Raises:
        UsageError: with `torch_free`, a package's combiner cannot be used. The message names the package.
    """
    every = list(dict.fromkeys([*_BUILT_IN, *_registered, *sorted(_packaged())]))
    return [name for name in every if not _find(name).needs_torch] if torch_free else every


def parse_spec(spec: str) -> tuple[type[Combiner], dict[str, Any]]:
    """The class and the typed options of a spec `name[:key=value[,key=value]...]`. It makes no combiner.

    Args:
        spec: for example "pcgrad:order=shared,reduction=sum".

    Raises:
        UsageError: an unknown name or option (the message suggests the closest one), a value of the wrong type, or a
            package's combiner that cannot be used. It is also a ValueError.

    Example:
        >>> parse_spec("fairgrad:alpha=2")[1]
        {'alpha': 2.0}
    """
    if not isinstance(spec, str):
        raise UsageError(f"a combiner is named by a text such as 'fairgrad:alpha=1', not by a {type(spec).__name__}")
    name, _, rest = spec.strip().partition(":")
    kind = _find(name)
    types = _option_types(kind)
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, text = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"{name}: an option is written key=value, not {item!r}")
        if key not in types:
            known = suggestion(key, types) if types else "it takes none"
            raise UsageError(f"{name} has no option {key!r}: {known}", option=key, allowed=types)
        if key in options:
            raise UsageError(f"{name}: option {key!r} is given twice", option=key)
        options[key] = _read(name, key, types[key], text)
    return kind, options


def make(spec: str) -> Combiner:
    """A new combiner from its spec, such as `mean`, `fairgrad:alpha=2` or `pcgrad:reduction=sum`.

    Args:
        spec: the name, and options that differ from their defaults.

    Raises:
        UsageError: see `parse_spec`; or an option's value is out of range. It is also a ValueError.

    Example:
        >>> make("fairgrad:alpha=2")
        FairGrad(alpha=2.0)
    """
    kind, options = parse_spec(spec)
    return kind(**options)


def register(kind: Kind) -> Kind:
    """The class itself, after `make`, `parse_spec` and `names` learn its name in this process.

    Use it as a decorator, above `@dataclass`. A class with the same module and qualified name is replaced, so a
    notebook cell can run again. Worker processes do not see the class. For them, put it into a package with an entry
    point in the group `toppo.combiners`.

    Args:
        kind: a `Combiner` with its own `name`. Each option needs a default and the type float, int, bool, str or
            Literal of strings.

    Raises:
        UsageError: the class cannot be made from a spec, or its name is taken.
    """
    label = f"the combiner {getattr(kind, '__name__', repr(kind))}"
    if problem := _problem(kind):
        raise UsageError(f"{label} {problem}")
    if kind.name in _BUILT_IN:
        raise UsageError(f"{label} has the name {kind.name!r} of a method of toppo; choose another", value=kind.name)
    before = _registered.get(kind.name, kind)
    if (before.__module__, before.__qualname__) != (kind.__module__, kind.__qualname__):
        owner = f"{before.__module__}.{before.__qualname__}"
        raise UsageError(f"{label} has the name {kind.name!r}, which {owner} has; choose another", value=kind.name)
    _registered[kind.name] = kind
    return kind


@cache
def _packaged() -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of installed packages, by combiner name. Finding them reads every package's metadata once."""
    from importlib.metadata import entry_points

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def _find(name: str) -> type[Combiner]:
    """The class of a name.

    Raises:
        UsageError: there is no such name, two packages have this name, or a package's class cannot be used.
    """
    if name in _registered:
        return _registered[name]
    points = _packaged().get(name, ())
    if name in _BUILT_IN:
        if points:
            raise UsageError(
                f"the package {_package(points[0])} has a combiner {name!r}, which is the name of a method of toppo: "
                "rename the combiner there, or uninstall the package",
                value=name,
            )
        return _BUILT_IN[name]
    if not points:
        raise unknown("combiner", name, names())
    if len(points) > 1:
        owners = " and ".join(_package(point) for point in points)
        raise UsageError(f"the packages {owners} each have a combiner {name!r}: uninstall all but one", value=name)
    if name not in _loaded:
        _loaded[name] = _load(points[0])
    return _loaded[name]


def _load(point: EntryPoint) -> type[Combiner]:
    """The class behind an entry point.

    Raises:
        UsageError: the class cannot be imported or made from a spec. The message names the package.
    """
    label = f"the combiner {point.name!r} of the package {_package(point)} ({point.value})"
    mend = "update or uninstall the package"
    try:
        kind = point.load()
    except Exception as error:  # another package's module can raise anything when it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{label} cannot be imported ({reason}); {mend}", value=point.name) from error
    problem = _problem(kind)
    if not problem and kind.name != point.name:
        problem = f"calls itself {kind.name!r}, but its entry point is named {point.name!r}: the names must be the same"
    if problem:
        raise UsageError(f"{label} {problem}; {mend}", value=point.name)
    found: type[Combiner] = kind
    return found


def _package(point: EntryPoint) -> str:
    """The name and version of the package that has an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "without a name"


def _problem(kind: Any) -> str | None:
    """Why a class cannot be made from a spec; None if it can."""
    if not (inspect.isclass(kind) and issubclass(kind, Combiner)):
        return "is not a subclass of toppo.combiners.Combiner"
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        return f"does not define {', '.join(missing)}"
    name = getattr(kind, "name", None)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        return f"needs a `name` of lower-case letters, digits, '-', '.' and '_', not {name!r}"
    try:
        types = _option_types(kind)
    except Exception as error:  # an annotation can be any expression
        return f"has annotations that cannot be read ({error})"
    for f in option_fields(kind):
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            return f"has an option {f.name!r} without a default"
        hint = types[f.name]
        texts = get_origin(hint) is Literal and all(isinstance(value, str) for value in get_args(hint))
        if not texts and hint not in _OPTION_TYPES:
            return f"has an option {f.name!r} of a type other than float, int, bool, str and Literal of strings"
    return None


def _option_types(kind: type[Combiner]) -> dict[str, Any]:
    """The type of each option of a class."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in option_fields(kind)}


def _read(name: str, key: str, hint: Any, text: str) -> Any:
    """The value of one option, converted to the type of its field."""
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        if text not in allowed:
            raise UsageError(
                f"{name}: {key} is one of {', '.join(allowed)}, not {text!r}", option=key, value=text, allowed=allowed
            )
        return text
    try:
        return {"true": True, "false": False}[text.lower()] if hint is bool else hint(text)
    except (KeyError, ValueError):
        raise UsageError(f"{name}: {key} takes {_OPTION_TYPES[hint]}, not {text!r}", option=key, value=text) from None
