"""What a combiner is: a map from the Gram of the per-task gradients to one weight per task.

J (K, P) holds the per-task gradients g_i, one per row. G = J J' (K, K) is their Gram. The weights w (K,) make the
direction d = J'w = sum_i w_i g_i. A combiner reads G. Where it needs them, it also reads the losses, its own state and
an order (a permutation of the tasks, drawn outside). It never reads J. So the trainer and a replay from a dump run the
same code.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from toppo.combiners.blas import single_thread
from toppo.combiners.errors import CombinerError
from toppo.combiners.gram import alive_tasks, all_alive, check_gram, check_grams, check_losses, check_order
from toppo.common.errors import UsageError

EPS = 2.0**-52
"""Spacing of float64 at 1."""


class Status(IntEnum):
    """How a combiner came to its weights. Dumps store these numbers: add to them, never change one."""

    OK = 0
    """The method's own solution."""
    AT_FLOOR = 1
    """The method's own solution, as accurate as rounding in G allows (`Record.floor`)."""
    PARETO_STATIONARY = 2
    """No finite solution exists: a non-negative combination of the gradients is zero, up to rounding. The weights solve
    the problem with a ridge (`Record.ridge`), or they are the limit that the method's docstring names."""
    NOT_CONVERGED = 3
    """The iteration limit was reached. `Record.residual` says how far the weights are from a solution."""
    LEAST_SQUARES = 4
    """Tier 2 of Algorithm C.2 answered: scipy's least squares."""
    UNIFORM = 5
    """Tier 3 of Algorithm C.2 answered: 1 / K. The solver failed."""
    NO_GRADIENT = 6
    """Every task is dead. The weights are zero, or those that the method gives to dead tasks."""
    UNRESOLVED = 7
    """Rounding in G hides the solution: it changes some task's part of the equation by about as much as that part
    (`Record.floor`). The weights minimise the method's objective as well as float64 can tell, and no more."""


@dataclass(frozen=True, slots=True)
class Record:
    """How one call went.

    Attributes:
        residual: distance of the weights from the method's own equation, without units. 0 where nothing is solved.
        iterations: steps of the outermost loop; 0 for closed forms.
        status: a `Status`.
        ridge: number that was added to the diagonal of the correlation matrix diag(G)^(-1/2) G diag(G)^(-1/2), so that
            the problem has a solution.
        floor: the residual that rounding the entries of G to float64 can cause by itself.
    """

    residual: float = 0.0
    iterations: int = 0
    status: Status = Status.OK
    ridge: float = 0.0
    floor: float = 0.0


_RECORD = dataclasses.fields(Record)


@dataclass(frozen=True, slots=True)
class Combination:
    """The weights of one direction d = J'w, and how they were found.

    Attributes:
        weights: w, shape (K,), float64.
        record: how the call went.
        reports: values of the numbers that `Combiner.reports` names.
    """

    weights: Float[np.ndarray, "K"]
    record: Record
    reports: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Combinations:
    """The results for a stack of T Grams, one array per field of `Combination` and `Record`.

    Attributes:
        weights: w, shape (T, K), float64.
        residual, iterations, status, ridge, floor: shape (T,), as in `Record`.
    """

    weights: Float[np.ndarray, "T K"]
    residual: Float[np.ndarray, "T"]
    iterations: Int[np.ndarray, "T"]
    status: Int[np.ndarray, "T"]
    ridge: Float[np.ndarray, "T"]
    floor: Float[np.ndarray, "T"]

    @classmethod
    def zeros(cls, n_grams: int, n_tasks: int) -> Combinations:
        """Room for T = n_grams results of K = n_tasks weights, to be filled by `put`."""
        kinds = {column.name: np.int64 if column.name in ("iterations", "status") else np.float64 for column in _RECORD}
        return cls(
            np.zeros((n_grams, n_tasks)), **{name: np.zeros(n_grams, dtype=kind) for name, kind in kinds.items()}
        )

    def put(self, t: int, one: Combination) -> None:
        """Store the result for Gram t."""
        self.weights[t] = one.weights
        for column in _RECORD:
            getattr(self, column.name)[t] = getattr(one.record, column.name)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a method promises for every Gram that it solves (status OK). A property test checks every claim.

    Attributes:
        nonnegative: w_i >= 0, so d lies in the cone of the gradients (Theorem C.1 of the TOPPO paper).
        non_conflicting: (G w)_i >= 0, so no task's loss rises to first order.
        scale_invariant: d stays the same when each g_i becomes c_i g_i, for every c > 0.
        linear_under_scaling: d(C J) is linear in c > 0, with C = diag(c). So d(c J) = c d(J) for a number c.
        homogeneous: d(c J) = c d(J) for a positive number c.
        equivariant: renumbering the tasks (and state and order with them) renumbers the weights.
    """

    nonnegative: bool = False
    non_conflicting: bool = False
    scale_invariant: bool = False
    linear_under_scaling: bool = False
    homogeneous: bool = False
    equivariant: bool = True


DeadTasks = Literal["drop", "count", "keep"]
"""What `combine` does with dead tasks, those without a gradient (see `Combiner`)."""


@dataclass
class Combiner(ABC):
    """A method that turns a Gram into weights. Its dataclass fields are its options.

    A new method is a dataclass with a `name`, its `claims` and `_combine`. `toppo.combiners.register` makes it known by
    name in this process. A package makes it known everywhere with an entry point in the group `toppo.combiners`.

    Class attributes:
        name: the method's name in specs.
        dead_tasks: what `combine` does with dead tasks, those with G_ii = 0 or below the normal numbers of float64.
            "drop": dead tasks get weight 0, and `_combine` sees the Gram of the live tasks alone. If every task is
            dead, `combine` answers by itself, with status NO_GRADIENT. "count": the same, except that d starts from the
            mean over all K tasks. So the weights of n live tasks are multiplied by n / K, and a dead task gets
            `_weight_of_dead`. "keep": `_combine` sees every task. Methods with an order or a state must say "keep",
            because an order or a state is about all K tasks.
        needs_losses: whether `combine` must be given the losses.
        needs_positive_losses: whether these must be positive, which the losses of PPO's actor are not.
        needs_order: whether `combine` must be given an order from `draw_order`.
        needs_torch: whether `combine` imports torch.
        state_names: the arrays that a call leaves for the next call.
        reports: the method's own numbers in `Combination.reports`, each with its meaning.

    Example:
        >>> @dataclass
        ... class InverseNorm(Combiner):
        ...     name = "inverse-norm"
        ...     power: float = 1.0
        ...     @property
        ...     def claims(self):
        ...         return Claims(nonnegative=True)
        ...     def _combine(self, gram, losses, order):
        ...         return Combination(np.diagonal(gram) ** (-self.power / 2), Record())
        >>> InverseNorm().combine(np.diag([4.0, 0.0, 16.0])).weights
        array([0.5 , 0.  , 0.25])
    """

    name: ClassVar[str]
    dead_tasks: ClassVar[DeadTasks] = "drop"
    needs_losses: ClassVar[bool] = False
    needs_positive_losses: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    needs_torch: ClassVar[bool] = False
    state_names: ClassVar[tuple[str, ...]] = ()
    reports: ClassVar[Mapping[str, str]] = {}

    _memory: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.dead_tasks != "keep" and (cls.needs_order or cls.state_names):
            raise TypeError(f'{cls.__name__} has an order or a state of all tasks: give it `dead_tasks = "keep"`')

    @property
    @abstractmethod
    def claims(self) -> Claims:
        """What this method promises with its current options."""

    @cached_property
    def spec(self) -> str:
        """The canonical spec: the name and every option. `make(c.spec)` is the same combiner even if defaults change.

        >>> from toppo.combiners import FairGrad
        >>> FairGrad().spec
        'fairgrad:alpha=1'
        """
        options = ",".join(f"{f.name}={_option(getattr(self, f.name))}" for f in option_fields(type(self)))
        return f"{self.name}:{options}" if options else self.name

    def check_use(self, n_tasks: int) -> None:  # noqa: B027 (most methods accept everything)
        """Reject options that a loop calling only `combine` cannot support.

        Args:
            n_tasks: K.

        Raises:
            UsageError: an option, or this number of tasks, needs more than `combine`.
        """

    def draw_order(self, rng: np.random.Generator, n_tasks: int) -> Int[np.ndarray, "..."] | None:
        """The random order for one call of `combine`, which a replay needs too. None for most methods.

        Args:
            rng: the source of randomness.
            n_tasks: K.
        """
        return None

    def combine(
        self,
        gram: Float[np.ndarray, "K K"],
        *,
        losses: Float[np.ndarray, "K"] | None = None,
        order: Int[np.ndarray, "..."] | None = None,
    ) -> Combination:
        """The weights for one Gram. A stateful method moves its state by one call.

        Args:
            gram: G = J J' of the per-task gradients J (K, P): symmetric, finite, with a non-negative diagonal.
            losses: one loss per task, for methods with `needs_losses`.
            order: what `draw_order` drew, for methods with `needs_order`.

        Returns:
            Weights (K,) and a record. A problem without a solution is a status of the record, not an exception.

        Raises:
            CombinerError: the Gram, the losses or the order are missing or wrong. It is also a ValueError.
        """
        gram = check_gram(gram)
        n_tasks = len(gram)
        if self.needs_losses:
            losses = check_losses(losses, n_tasks, self.name)
        if self.needs_order:
            order = check_order(order, n_tasks, self.name)
        with single_thread():
            return self._combine_live(gram, losses, order)

    def solve_many(
        self,
        grams: Float[np.ndarray, "T K K"],
        *,
        losses: Float[np.ndarray, "T K"] | None = None,
        orders: Int[np.ndarray, "T ..."] | None = None,
    ) -> Combinations:
        """The results of `combine` for T Grams in turn, stacked. A stateful method moves its state T times.

        Args:
            grams: G of each call.
            losses: one loss per task for each call, for methods with `needs_losses`.
            orders: what `draw_order` drew for each call, for methods with `needs_order`.

        Raises:
            CombinerError: see `combine`. The message names the number of the wrong Gram.
        """
        grams = check_grams(grams)
        with single_thread():
            return self._solve_many(grams, losses, orders)

    def state(self) -> dict[str, np.ndarray]:
        """Copies of the arrays that a call leaves for the next; {} for a stateless method and before the first call."""
        return {name: value.copy() for name, value in self._memory.items()}

    def remember(self, **arrays: Float[np.ndarray, "..."] | float) -> None:
        """Put arrays into the state, under names among `state_names`."""
        self._memory.update({name: np.array(value, dtype=np.float64) for name, value in arrays.items()})

    def recall(self, name: str, shape: tuple[int, ...], fill: float = 0.0) -> Float[np.ndarray, "..."]:
        """A copy of one array of the state. Before the first call it is an array of `fill`.

        Args:
            name: one of `state_names`.
            shape: the shape that this call needs.
            fill: the value before the first call.

        Raises:
            CombinerError: the state has another shape, because the number of tasks changed.
        """
        if name not in self._memory:
            return np.full(shape, fill)
        value = self._memory[name]
        if value.shape != shape:
            raise CombinerError(
                f"{self.name}: the state's {name} has shape {value.shape}, but this call needs shape {shape}; "
                "keep the number of tasks, or clear the state with restore({})"
            )
        return value.copy()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back a state that `state` returned. An empty one clears the state.

        Args:
            state: the arrays by name.

        Raises:
            CombinerError: the state belongs to another method. Then the combiner keeps the state that it has.
        """
        if unknown := sorted(set(state) - set(self.state_names)):
            holds = ", ".join(self.state_names) or "nothing"
            raise CombinerError(
                f"{self.name} carries {holds}, but the state to restore holds {', '.join(unknown)}; "
                "restore a state of the same method"
            )
        self._memory = {}
        self.remember(**state)

    @abstractmethod
    def _combine(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        """The weights for checked arguments. K counts live tasks only, unless `dead_tasks` is "keep"."""

    def _weight_of_dead(self, n_tasks: int) -> float:
        """The weight of a dead task with `dead_tasks` "count": 1 / K, as in a mean. It moves nothing."""
        return 1 / n_tasks

    def _combine_live(
        self,
        gram: Float[np.ndarray, "K K"],
        losses: Float[np.ndarray, "K"] | None,
        order: Int[np.ndarray, "..."] | None,
    ) -> Combination:
        """The weights of all tasks, where `_combine` weighs the live ones. Only this method deals with dead tasks."""
        if self.dead_tasks == "keep" or all_alive(gram):
            return self._combine(gram, losses, order)
        n_tasks = len(gram)
        counted = self.dead_tasks == "count"
        weights = np.full(n_tasks, self._weight_of_dead(n_tasks) if counted else 0.0)
        live = np.flatnonzero(alive_tasks(np.sqrt(np.diagonal(gram))))
        if not len(live):
            return Combination(weights, Record(status=Status.NO_GRADIENT))
        part = self._combine(gram[np.ix_(live, live)], None if losses is None else losses[live], None)
        # A dead task adds nothing to the sum of the gradients, but it counts in their mean.
        weights[live] = part.weights * (len(live) / n_tasks) if counted else part.weights
        return Combination(weights, part.record, part.reports)

    def _solve_many(
        self,
        grams: Float[np.ndarray, "T K K"],
        losses: Float[np.ndarray, "T K"] | None,
        orders: Int[np.ndarray, "T ..."] | None,
    ) -> Combinations:
        """`solve_many` for checked Grams, one after another. A method may override it with something faster."""
        out = Combinations.zeros(*grams.shape[:2])
        for t, gram in enumerate(grams):
            loss = None if losses is None else losses[t]
            order = None if orders is None else orders[t]
            out.put(t, self.combine(gram, losses=loss, order=order))
        return out


def require_positive(owner: str, **options: float) -> None:
    """Reject options that are not positive finite numbers.

    Args:
        owner: the method's name.
        options: each option's value.

    Raises:
        UsageError: an option is not. The message names the method, the option and the value.
    """
    for name, value in options.items():
        if not (math.isfinite(value) and value > 0):
            raise option_error(owner, name, value, "must be a positive finite number")


def require_at_least_zero(owner: str, **options: float) -> None:
    """Reject options that are negative or not finite.

    Args:
        owner: the method's name.
        options: each option's value.

    Raises:
        UsageError: an option is. The message names the method, the option and the value.
    """
    for name, value in options.items():
        if not (math.isfinite(value) and value >= 0):
            raise option_error(owner, name, value, "must be a finite number >= 0")


def option_error(owner: str, name: str, value: object, rule: str) -> UsageError:
    """The error for a combiner's option: "fairgrad: alpha must be a positive finite number, not 0.0".

    The name stands without backticks, because the command line turns names in backticks into its own flags.

    Args:
        owner: the method's name.
        name: the option's name.
        value: the value that the option was given.
        rule: what the value must be.
    """
    return UsageError(f"{owner}: {name} {rule}, not {value!r}", option=name, value=value)


def option_fields(kind: type[Combiner]) -> list[dataclasses.Field[Any]]:
    """The dataclass fields that are a combiner's options."""
    return [f for f in dataclasses.fields(kind) if f.init]


def _option(value: object) -> str:
    """The text of an option in a spec: 1.0 becomes 1, and every float reads back exactly."""
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value)
