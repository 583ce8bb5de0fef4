"""The ways to per-task gradients, and the choice of the cheapest one that gives the same Grams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from toppo.capture.losses import TaskLosses
from toppo.capture.rows import Rows
from toppo.capture.samples import NotPossibleError, Samples, hooked
from toppo.capture.walks import walk, walk_together

WayName = Literal["walks", "vectorised", "samples"]
"""walks: one walk of the graph per task. vectorised: one walk with K gradients at once. samples: one ordinary backward
pass with hooks, where each task has samples of its own."""

WAYS: tuple[WayName, ...] = get_args(WayName)

ROUNDS, LONG = 5, 0.5
"""A way is timed this often, unless that takes more than LONG seconds. The shortest time counts."""

WORTH_IT = 0.8
"""Another way than K walks is taken if its time is below this share of theirs. Timing errors then rarely decide."""

MOST_TOGETHER = 2**26
"""K P up to which `vectorised` is tried. Larger products take the time of K walks anyway, and K times the memory."""

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""How far two ways' G_ij may be apart, over sqrt(G_ii G_jj) of the layer, by the type of the parameters.

Rounding is far below it (1e-6 in float32); samples that are not a task's own are far above it. Its square, over the
norms of all layers, is allowed too: the gradient of a layer such as the key bias of attention is rounding alone.
"""
HALF_TOLERANCE = 2e-2
"""The same for parameters, or a forward pass, of 16 bits."""


@dataclass(frozen=True)
class Way:
    """How per-task gradients are computed.

    Attributes:
        name: see `WayName`.
        time_first: for `samples`, how each parameter's operations lay out the samples.
        seconds: way -> seconds of the one recorded step in which the ways were compared.
        refused: way -> why it cannot be used.
        strict: whether a step that does not allow this way is an error.
    """

    name: WayName = "walks"
    time_first: tuple[bool, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    strict: bool = False

    @contextmanager
    def capturing(
        self,
        losses: TaskLosses,
        parameters: Sequence[nn.Parameter],
        rows: Rows,
        samples: Samples | None,
        weights: Tensor | None = None,
        scale: float | Tensor = 1.0,
    ) -> Iterator[Tensor]:
        """A context whose value is the loss to walk, sum_i L_i or sum_i w_i L_i.

        After one walk of it, scaled up or not, `rows` has the gradients of every L_i, times `scale`. Where this step
        does not allow this way, its graph is walked once per task.

        Args:
            losses: K losses.
            parameters: the shared parameters.
            rows: takes the gradients.
            samples: the task of each sample.
            weights: w, (K,).
            scale: the factor of a `GradScaler`, by which the caller multiplies the loss before the walk.
        """
        total = losses.total(weights)
        with ExitStack() as hooks:
            try:
                if self.name == "samples" and samples is not None and weights is None:
                    hooks.enter_context(hooked(total, parameters, rows, samples, self.time_first))
                elif self.name == "vectorised":
                    walk_together(losses, parameters, rows, scale)
                else:
                    walk(losses, parameters, rows, scale)
            except (NotPossibleError, RuntimeError):
                if self.strict or self.name == "walks":
                    raise
                walk(losses, parameters, rows, scale)
            yield total


def choose(
    losses: TaskLosses, parameters: Sequence[nn.Parameter], samples: Samples | None, wanted: WayName | None
) -> Way:
    """The way that was clearly fastest in this step, among those whose layer Grams equal those of K walks.

    It walks the graph several times for each task, once in a run.

    Args:
        losses: K losses, whose graph stays.
        parameters: the shared parameters.
        samples: the task of each sample, if each task has its own.
        wanted: the way that the user chose; None for the fastest.

    Raises:
        NotPossibleError: the wanted way cannot be used here. The message says why.
    """
    way = Way()
    if wanted == "walks":
        return way
    n_tasks = len(losses.values)

    def timed(run: Callable[[Rows], None]) -> tuple[Tensor, float]:
        times: list[float] = []
        while not times or (len(times) < ROUNDS and sum(times) < LONG):
            rows = Rows(parameters, n_tasks, keep=False)
            _synchronise(parameters)
            start = time.perf_counter()
            run(rows)
            _synchronise(parameters)
            times.append(time.perf_counter() - start)
        return rows.grams(), min(times)

    def trial(candidate: Way) -> tuple[Tensor, float]:
        return timed(lambda rows: _fill(rows, candidate, losses, parameters, samples))

    reference, way.seconds["walks"] = trial(way)
    tolerance = _tolerance(parameters)
    usable = [way]
    for name in ("vectorised", "samples"):
        if wanted not in (None, name) or (name == "samples" and samples is None):
            continue
        try:
            candidate = Way(name, (False,) * len(parameters) if name == "samples" else (), strict=True)
            if name == "vectorised" and n_tasks * sum(p.numel() for p in parameters) > MOST_TOGETHER and not wanted:
                raise NotPossibleError(f"K P is above {MOST_TOGETHER:,}, so it cannot be faster")
            grams, seconds = trial(candidate)
            if name == "samples" and not all(same := _same(grams, reference, tolerance)):
                candidate = Way(name, tuple(not one for one in same), strict=True)
                grams, seconds = trial(candidate)
            if not all(_same(grams, reference, tolerance)):
                why = ", so a loss depends on others' samples" if name == "samples" else ""
                raise NotPossibleError(f"its Grams differ from those of K walks{why}")
            way.seconds[name] = seconds
            usable.append(candidate)
        except (NotPossibleError, RuntimeError) as error:
            way.refused[name] = str(error).splitlines()[0]
            if wanted == name:
                raise NotPossibleError(way.refused[name]) from error
    best = usable[-1] if wanted else min(usable, key=lambda one: way.seconds[one.name])
    if not wanted and way.seconds[best.name] > WORTH_IT * way.seconds["walks"]:
        best = way
    return Way(best.name, best.time_first, way.seconds, way.refused)


def still_exact(way: Way, losses: TaskLosses, parameters: Sequence[nn.Parameter], samples: Samples | None) -> bool:
    """Whether a way gives the layer Grams of K walks in this step too.

    Args:
        way: what `choose` returned in an earlier step.
        losses: K losses, whose graph stays.
        parameters: the shared parameters.
        samples: the task of each sample, if each task has its own.
    """
    if way.name == "walks" or (way.name == "samples" and samples is None):
        return True
    found, reference = (Rows(parameters, len(losses.values), keep=False) for _ in range(2))
    _fill(found, way, losses, parameters, samples)
    if found.missing:
        return True  # such a step is not recorded
    _fill(reference, Way(), losses, parameters, samples)
    return all(_same(found.grams(), reference.grams(), _tolerance(parameters)))


def _fill(
    rows: Rows, way: Way, losses: TaskLosses, parameters: Sequence[nn.Parameter], samples: Samples | None
) -> None:
    """Per-task gradients by one way, with a backward pass that leaves `.grad` alone."""
    trained = [p for p in parameters if p.requires_grad]
    with way.capturing(losses, parameters, rows, samples) as total:
        torch.autograd.grad(total, trained, retain_graph=True, allow_unused=True)


def _same(grams: Tensor, reference: Tensor, tolerance: float) -> list[bool]:
    """For each layer, whether two Grams are equal but for rounding. What is not finite has to be so in both."""
    norms = torch.diagonal(reference, dim1=1, dim2=2).sqrt()
    whole = torch.diagonal(reference.sum(0)).sqrt()
    bound = tolerance * norms[:, :, None] * norms[:, None, :] + tolerance**2 * whole[:, None] * whole
    same = ((grams - reference).abs() <= bound) | (~grams.isfinite() & ~reference.isfinite())
    of_layers: list[bool] = same.flatten(1).all(1).tolist()
    return of_layers


def _tolerance(parameters: Sequence[nn.Parameter]) -> float:
    types = {p.dtype for p in parameters}
    if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu") or not types <= TOLERANCE.keys():
        return HALF_TOLERANCE
    return max(TOLERANCE[one] for one in types)


def _synchronise(parameters: Sequence[nn.Parameter]) -> None:
    if parameters[0].is_cuda:
        torch.cuda.synchronize(parameters[0].device)
