"""What a combiner is: a map from the Gram of the per-task gradients to one weight per task.

With J (K, P) the per-task gradients and G = J J' their Gram, the step is d = J' w = sum_i w_i g_i. Every method here
reads G (and losses, its own state, an explicit order), never J: that is what lets the trainer and a replay from a dump
run the same code.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.blas import single_thread
from toppo.combiners.gram import check_gram, check_grams, check_losses, check_order

EPS = 2.0**-52
"""Spacing of float64 at 1."""


class Status(IntEnum):
    """How a combiner came to its weights. The numbers are stored in dumps: only ever add to them."""

    OK = 0
    """The method's own solution."""
    AT_FLOOR = 1
    """The method's own solution, to the accuracy that rounding in G allows (Record.floor) and no better."""
    PARETO_STATIONARY = 2
    """No finite solution exists: some non-negative combination of the gradients is (numerically) zero. The weights
    solve the problem with a ridge (Record.ridge), or are the limit the method's docstring names."""
    NOT_CONVERGED = 3
    """The iteration limit was reached; Record.residual says how far."""
    LEAST_SQUARES = 4
    """Algorithm C.2's tier 2 answered (scipy's least squares)."""
    UNIFORM = 5
    """Algorithm C.2's tier 3 answered (1 / K), a failure."""
    NO_GRADIENT = 6
    """Every task is dead (G = 0): the weights are zero, or the method's uniform ones."""


@dataclass(frozen=True, slots=True)
class Record:
    """What happened in one call.

    Attributes:
        residual: how far the weights are from the method's own equation, in that method's scale-free measure; 0 where
            there is nothing to solve.
        iterations: steps of the outermost loop; 0 for closed forms.
        status: see `Status`.
        ridge: what was added to the diagonal of the correlation matrix diag(G)^(-1/2) G diag(G)^(-1/2) to make the
            problem solvable.
        floor: the residual that rounding the entries of G to fp64 alone can cause.
    """

    residual: float = 0.0
    iterations: int = 0
    status: Status = Status.OK
    ridge: float = 0.0
    floor: float = 0.0


_RECORD = dataclasses.fields(Record)


@dataclass(frozen=True, slots=True)
class Combination:
    """Weights of one step, d = sum_i w_i g_i, and how they came about.

    Attributes:
        weights: w, shape (K,), float64.
        record: see `Record`.
        reports: the numbers that the method names in `Combiner.reports`.
    """

    weights: Float[np.ndarray, "K"]
    record: Record
    reports: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Combinations:
    """`Combination` for a stack of T Grams, field by field.

    Attributes:
        weights: shape (T, K), float64.
        residual, iterations, status, ridge, floor: shape (T,); see `Record`.
    """

    weights: Float[np.ndarray, "T K"]
    residual: Float[np.ndarray, "T"]
    iterations: Int[np.ndarray, "T"]
    status: Int[np.ndarray, "T"]
    ridge: Float[np.ndarray, "T"]
    floor: Float[np.ndarray, "T"]

    @classmethod
    def zeros(cls, n_grams: int, n_tasks: int) -> Combinations:
        """T = n_grams results to be `put` in."""
        kinds = {column.name: np.int64 if column.name in ("iterations", "status") else np.float64 for column in _RECORD}
        return cls(
            np.zeros((n_grams, n_tasks)), **{name: np.zeros(n_grams, dtype=kind) for name, kind in kinds.items()}
        )

    def put(self, t: int, one: Combination) -> None:
        """Make `one` the result of Gram t."""
        self.weights[t] = one.weights
        for column in _RECORD:
            getattr(self, column.name)[t] = getattr(one.record, column.name)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a method promises on every Gram it solves (status OK). Each claim a class makes is a property test.

    Attributes:
        nonnegative: w_i >= 0, so that d lies in cone+{g_i} (Theorem C.1 of the TOPPO paper).
        non_conflicting: (G w)_i >= 0, so that no task's loss rises to first order.
        scale_invariant: d is unchanged under g_i -> c_i g_i for every c > 0.
        linear_under_scaling: d(C J) is linear in c > 0, for C = diag(c); in particular d(c J) = c d(J).
        homogeneous: d(c J) = c d(J) for one positive factor c common to all tasks.
        equivariant: renumbering the tasks (with state and order) renumbers the weights.
    """

    nonnegative: bool = False
    non_conflicting: bool = False
    scale_invariant: bool = False
    linear_under_scaling: bool = False
    homogeneous: bool = False
    equivariant: bool = True


@dataclass
class Combiner(ABC):
    """A method that turns a Gram into weights. Its options are the dataclass fields a constructor takes.

    Class attributes:
        name: what `make` knows it by.
        needs_losses: whether `combine` must be given the tasks' losses.
        needs_order: whether `combine` must be given what `draw_order` draws.
        needs_torch: whether `combine` imports torch.
        state_names: the arrays it carries from call to call.
        reports: numbers of its own that every call gives in `Combination.reports`, and what each is.
    """

    name: ClassVar[str]
    needs_losses: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    needs_torch: ClassVar[bool] = False
    state_names: ClassVar[tuple[str, ...]] = ()
    reports: ClassVar[Mapping[str, str]] = {}

    _memory: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    @abstractmethod
    def claims(self) -> Claims:
        """What this method promises, with these options."""

    @cached_property
    def spec(self) -> str:
        """The canonical spec string: name and every option, so that `make(c.spec)` is the same combiner whatever the
        defaults."""
        options = ",".join(f"{f.name}={_option(getattr(self, f.name))}" for f in option_fields(type(self)))
        return f"{self.name}:{options}" if options else self.name

    def check_use(self, n_tasks: int) -> None:  # noqa: B027 (most have nothing to refuse)
        """Refuse, before the first call, what a loop that calls `combine` and nothing else could not go on with.

        Raises:
            ValueError: these options, or this number of tasks, need something else.
        """

    def draw_order(self, rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "..."] | None:
        """Draw what this method leaves to chance, to be passed to `combine` and stored for a replay; None where nothing
        is."""
        return None

    def combine(
        self,
        gram: Float[np.ndarray, "K K"],
        *,
        losses: Float[np.ndarray, "K"] | None = None,
        order: Int[np.ndarray, "..."] | None = None,
    ) -> Combination:
        """Weights for one Gram. A stateful method moves its state by one call.

        Args:
            gram: G = J J' of the per-task gradients J (K, P); symmetric, finite, non-negative diagonal.
            losses: the tasks' losses, for methods with `needs_losses`.
            order: what `draw_order` drew, for methods with `needs_order`.

        Returns:
            Weights (K,) and a record. A problem without a solution is a status, not an exception.

        Raises:
            ValueError: the Gram, the losses or the order are not what they should be.
        """
        gram = check_gram(gram)
        n_tasks = len(gram)
        if self.needs_losses:
            losses = check_losses(losses, n_tasks, self.name)
        if self.needs_order:
            order = check_order(order, n_tasks, self.name)
        with single_thread():
            return self._combine(gram, losses, order)

    def solve_many(
        self,
        grams: Float[np.ndarray, "T K K"],
        *,
        losses: Float[np.ndarray, "T K"] | None = None,
        orders: Int[np.ndarray, "T ..."] | None = None,
    ) -> Combinations:
        """`combine` on each of T Grams in turn (a stateful method moves its state T times), as one stacked result.

        Raises:
            ValueError: as `combine`, naming the index of the Gram at fault.
        """
        grams = check_grams(grams)
        with single_thread():
            return self._solve_many(grams, losses, orders)

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the arrays `combine` carries from call to call; {} for a stateless method, and before the first
        call."""
        return {name: value.copy() for name, value in self._memory.items()}

    def remember(self, **arrays: Float[np.ndarray, "..."] | float) -> None:
        """Make these part of the state, under names among `state_names`."""
        self._memory.update({name: np.array(value, dtype=np.float64) for name, value in arrays.items()})

    def recall(self, name: str, shape: tuple[int, ...], fill: float = 0.0) -> Float[np.ndarray, "..."]:
        """A copy of one array of the state, or an array of `fill` where there has been no call yet.

        Raises:
            ValueError: the number of tasks is not that of the calls before.
        """
        if name not in self._memory:
            return np.full(shape, fill)
        value = self._memory[name]
        if value.shape != shape:
            raise ValueError(
                f"{self.name} carries {name} of shape {value.shape}, but this call needs {shape}; restore({{}}) forgets"
            )
        return value.copy()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state` gave, exactly; {} forgets every call.

        Raises:
            ValueError: the state is another method's.
        """
        if unknown := sorted(set(state) - set(self.state_names)):
            holds = ", ".join(self.state_names) or "nothing"
            raise ValueError(f"{self.name} carries {holds}, but the state to restore holds {', '.join(unknown)}")
        self._memory = {}
        self.remember(**state)

    @abstractmethod
    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        """`combine` on checked arguments."""

    def _solve_many(
        self,
        grams: Float[np.ndarray, "T K K"],
        losses: Float[np.ndarray, "T K"] | None,
        orders: Int[np.ndarray, "T ..."] | None,
    ) -> Combinations:
        """`solve_many` on checked Grams: one after another, unless a method has something faster."""
        out = Combinations.zeros(*grams.shape[:2])
        for t, gram in enumerate(grams):
            loss = None if losses is None else losses[t]
            order = None if orders is None else orders[t]
            out.put(t, self.combine(gram, losses=loss, order=order))
        return out


def require_positive(owner: str, **options: float) -> None:
    """Refuse options that are not positive finite numbers.

    Raises:
        ValueError: naming the method, the option and its value.
    """
    for name, value in options.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{owner}: {name} must be a positive finite number, not {value!r}")


def option_fields(kind: type[Combiner]) -> list[dataclasses.Field[Any]]:
    """The fields of a combiner that are its options."""
    return [f for f in dataclasses.fields(kind) if f.init]


def _option(value: object) -> str:
    """An option as it stands in a spec: 1.0 as 1, and every float so that it reads back exactly."""
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value)
