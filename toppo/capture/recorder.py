"""`toppo.record`: per-task gradients of any training loop, by one call in place of `sum(losses).backward()`."""

from __future__ import annotations

import logging
import operator
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from toppo.capture.checkpoint import restore, saved
from toppo.capture.combining import combination_scalars, unsolved_scalars
from toppo.capture.errors import CaptureError, explained
from toppo.capture.found import Combiners, Found, combiners_by_side, find, scalar_specs
from toppo.capture.live import live_numbers
from toppo.capture.log import Exist, Log, find_place
from toppo.capture.losses import Losses, TaskLosses, task_losses
from toppo.capture.options import OnRecord, Options, Scaler, check_options, plain_config
from toppo.capture.ranks import Ranks
from toppo.capture.rows import Rows
from toppo.capture.samples import Samples
from toppo.capture.sharing import WHOLE
from toppo.capture.ways import Way, WayName, still_exact
from toppo.capture.window import Window
from toppo.combiners import Combiner
from toppo.dump.intake import SIDE_ENDS

log = logging.getLogger("toppo.capture")


def record(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    tasks: Sequence[str],
    every: int = 100,
    sides: Mapping[str, nn.Module] | None = None,
    slabs: bool = False,
    combiner: Combiners = None,
    scaler: Scaler | None = None,
    accumulate: int = 1,
    way: WayName | None = None,
    exist: Exist = "error",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    on_record: OnRecord | None = None,
) -> Recorder:
    """A recorder of the per-task gradients of a training loop.

    Call its `backward` in place of `sum(losses).backward()`. At each recorded step, the Gram of every layer is stored
    in the dump, for each side. With `slabs` the gradients are stored too.

    Args:
        path: the dump to make, such as "dumps/mine"; a local path or an fsspec URL.
        model: the network, on its own or in `DistributedDataParallel` (then the gradients are means over the ranks, and
            rank 0 writes). The recorder finds the parameters that two or more tasks use.
        tasks: K names.
        every: steps between two records. The first step is recorded, then each step that reaches or passes the next
            multiple of `every`.
        sides: name -> module of the model; None for one side "shared" with all that the tasks share.
        slabs: whether to keep the gradients J (K, P) too, not only their Grams.
        combiner: spec or combiner that decides the step of the shared parameters, for every side or by side. Then
            every step needs per-task gradients. None: the step is that of `sum(losses)`.
        scaler: the loop's `torch.amp.GradScaler`. `backward` scales the losses; recorded gradients are unscaled.
        accumulate: calls of `backward` for one step of the optimizer. Their gradients are summed before the Gram.
        way: how gradients are computed (`WayName`); None for the fastest exact way, found in the first recorded step.
            With several ranks the default is "walks".
        exist: what to do if something is at the path already: "error" raises an error, "resume" continues the dump that
            is there, "new" takes the next free name, such as dumps/mine-2.
        seed: seed of the random orders that some combiners need. They also depend on the number of the first step, so
            that a resumed run draws new ones, unless it loads a state.
        config: what else to store in the dump about the run, in values that JSON can hold.
        on_record: called after each record with its step and its scalars by name, for a live display. They are those of
            `toppo-diag scalars`, and the losses. What it raises ends the training; the record is kept.

    Raises:
        UsageError: an option is out of range, or no dump can be made at the path.
        CaptureError: an option does not fit the model, or the model cannot be recorded.
        DumpError: the path is taken.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with record("dumps/example", model, tasks=["left", "right"], every=5) as recorder:
        ...     for _ in range(20):
        ...         optimizer.zero_grad()
        ...         errors = (model(torch.randn(8, 3)) - 1) ** 2
        ...         recorder.backward(errors.mean(0))
        ...         optimizer.step()
        toppo: recording 2 tasks in dumps/example, every 5 steps
          shared: 8 numbers in 2 tensors, weight, bias
          way: ...
          gradients of a recorded step: 6.4e-05 MB at once
        toppo: recorded in dumps/example; look at it with: toppo-diag report dumps/example
    """
    kept = plain_config(config)
    options = Options(every, sides, slabs, combiner, scaler, accumulate, way, seed, kept, on_record)
    names = check_options(options, model, tasks)
    ranks = Ranks(model)
    return Recorder(Log(ranks.agree(lambda: find_place(path, exist)), ranks.writes), ranks, model, names, options)


class Recorder:
    """Walks the losses of a training loop and records their per-task gradients. `record` makes it.

    Args:
        log: where records go.
        ranks: the processes that train the model.
        model: the network.
        tasks: K names.
        options: see `record`.
    """

    def __init__(self, log: Log, ranks: Ranks, model: nn.Module, tasks: Sequence[str], options: Options) -> None:
        self._log, self._ranks, self._model, self._tasks, self._options = log, ranks, model, tasks, options
        self._combiners = combiners_by_side(options.combiner, options.sides or (WHOLE,), len(tasks))
        self._orders = np.random.default_rng(options.seed)  # until the first step is known
        self._found: Found | None = None
        self._window: Window | None = None
        self._parts = 0
        self._last_step: int | None = None
        self._next_step: int | None = None
        self._ended = False
        self._said: set[str] = set()
        self._own_names = _own_names(options, self._combiners)
        self._records = 0
        self._state: object = None
        if hasattr(functorch_config, "donated_buffer"):  # not in the oldest torch
            # torch.compile plans for one walk of its graph, and reads this when a model is first compiled.
            functorch_config.donated_buffer = False

    @property
    def path(self) -> str:
        """The dump."""
        return self._log.path

    def backward(
        self,
        losses: Losses,
        *,
        step: int | None = None,
        samples: Sequence[int] | Tensor | None = None,
        weights: Sequence[float] | Tensor | None = None,
        ends_step: bool | None = None,
        **numbers: Any,
    ) -> None:
        """Add the gradient of the sum of the losses to `.grad`, and record the per-task gradients if it is time.

        On every step `.grad` has the same bits as after `sum(losses).backward()`, unless weights or a combiner decide.

        Args:
            losses: K scalar losses: a tensor (K,), a list, or a dict by task name. None or a missing name: the task is
                absent from this batch.
            step: number of the step, rising; None counts the steps. A run that is resumed counts on from the last step
                of the run before, if that was closed. Resumed at an earlier step, it removes what was recorded from
                there on.
            samples: the task of every sample in the batch, (n,), if each loss depends on its task's samples alone.
                Then one backward pass can give all gradients.
            weights: w (K,), for a step along sum_i w_i g_i. Recorded gradients are those of the losses themselves.
            ends_step: whether the optimizer steps after this call, for loops that accumulate an uneven number of
                batches; then `accumulate` is the largest number. None: after each `accumulate` calls.
            numbers: what else to record of the step: a number, (K,) or (K, K). `success`, `accuracy` and
                `episode_return` are names that toppo-diag looks for.

        Raises:
            CaptureError: the losses, the step or the graph cannot be used. Nothing is added to `.grad` by losses that
                are wrong.
            CombinerError: the combiner cannot work with the losses, or its loaded state is of other tasks.
            MissingPackageError: the combiner needs a package that is not installed.
            DumpError: a number cannot be recorded.
        """
        if self._ended:
            raise CaptureError(f"{self.path}: this recorder is closed; call `toppo.record` again with `exist='resume'`")
        given = task_losses(losses, self._tasks)
        if taken := sorted(numbers.keys() & self._own_names):
            raise CaptureError(f"`{taken[0]}`: the recorder has numbers of this name; give yours another one")
        w = None if weights is None else self._weights(weights)
        if ends_step is False and self._options.accumulate == 1:
            raise CaptureError("`ends_step=False`: needs `toppo.record(..., accumulate=2)` or more")
        if self._options.accumulate == 1:
            self._require_losses([value is not None for value in given.values])
        if self._parts == 0:
            self._begin(step)
        try:
            if self._window is None:
                self._walk(given.total(w))
            else:
                self._capture(given, samples, w, numbers)
        except RuntimeError as error:
            self._window = None  # it does not hold what reached `.grad`
            known = explained(error)
            if known is None:
                raise
            raise known from error
        self._parts += 1
        if ends_step or (ends_step is None and self._parts == self._options.accumulate):
            self._parts = 0
            if self._window is not None:
                self._finish(self._window)
                self._window = None

    def flush(self) -> None:
        """Wait until every record is on disk. Without this call, records reach the disk in the background."""
        self._log.flush()

    def close(self) -> None:
        """Write what is left, mark the dump complete, and print how to look at it. A second call does nothing."""
        self._end(complete=True)

    def state_dict(self) -> dict[str, Any]:
        """What a run that resumes from a checkpoint needs: its next step, and what the combiners carry along.

        Save it with those of the model and the optimizer. `torch.load` reads it with `weights_only=True`. In the middle
        of an accumulated step, the next step is this one again.

        Returns:
            step (None before the first), orders (the state of the random generator) and combiners (side -> name ->
            tensor).
        """
        step = self._last_step if self._parts else self._next_step
        return saved(step, self._orders, self._combiners)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. Call it in every rank, before the first `backward`.

        Steps are counted on from the next step of the state, unless `backward` is given their numbers.

        Args:
            state: what `state_dict` returned in the run before.

        Raises:
            CaptureError: the state is not that of a recorder with these sides, or comes too late.
            CombinerError: the state belongs to another combiner.
        """
        if self._last_step is not None:
            raise CaptureError(f"{self.path}: a step was taken already; load the state before the first `backward`")
        self._next_step = restore(state, self._orders, self._combiners)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(complete=error is None)

    def _end(self, complete: bool) -> None:
        if not self._ended:
            self._ended = True
            if self._log.end(complete, self._last_step):
                left = ""
                if self._parts and self._window is not None and self._window.due:
                    most = self._options.accumulate
                    left = f", without step {self._window.step}: it had {self._parts} of {most} calls of `backward`"
                look = f"toppo-diag report {shlex.quote(self.path)}"
                print(f"toppo: recorded in {self.path}{left}; look at it with: {look}")

    def _begin(self, step: int | None) -> None:
        """Start a step of the optimizer, and a window if its gradients are wanted."""
        if step is not None:
            number = _whole(step)
        else:
            number = self._log.first_step() if self._next_step is None else self._next_step
        if self._last_step is None:
            self._log.rewind(number)
            if self._next_step is None:  # no state was loaded, so the run before may have drawn these orders
                self._orders = np.random.default_rng([self._options.seed, number])
        elif number < self._last_step:
            raise CaptureError(
                f"`step={number}`: comes after step {self._last_step}; give rising steps, "
                "or call `toppo.record` again with `exist='resume'` to go back"
            )
        self._last_step, self._next_step = number, number + 1
        due = self._log.due(number, self._options.every)
        # A window that an error left open must not take this step's gradients.
        self._window = Window(number, due) if due or self._options.combiner is not None else None

    def _require_losses(self, present: Sequence[bool]) -> None:
        """Raise CaptureError if a task is absent, and a combiner needs its loss."""
        absent = next((task for task, there in zip(self._tasks, present, strict=True) if not there), None)
        needing = next((combiner.name for combiner in self._combiners.values() if combiner.needs_losses), None)
        if absent is not None and needing is not None:
            raise CaptureError(
                f"combiner {needing!r} needs every task's loss, and task {absent!r} is absent; "
                "take one that reads gradients alone, such as 'fairgrad'"
            )

    def _walk(self, total: Tensor) -> None:
        scaler = self._options.scaler
        (total if scaler is None else scaler.scale(total)).backward()

    def _weights(self, weights: Sequence[float] | Tensor) -> Tensor:
        if self._options.combiner is not None:
            raise CaptureError("`weights`: a combiner decides the step of this recorder; give one of both")
        try:
            w = torch.as_tensor(weights)
        except (TypeError, ValueError, RuntimeError) as error:
            raise CaptureError(f"`weights`: not numbers ({error}); give one for each task") from error
        if w.shape != (len(self._tasks),):
            raise CaptureError(f"`weights`: of shape {tuple(w.shape)}; give ({len(self._tasks)},), one per task")
        return w.detach()

    def _capture(
        self,
        given: TaskLosses,
        samples: Sequence[int] | Tensor | None,
        w: Tensor | None,
        numbers: Mapping[str, Any],
    ) -> None:
        """Walk the losses of one call in a window."""
        window, options = self._window, self._options
        assert window is not None
        try:
            own = None if samples is None else Samples(torch.as_tensor(samples), len(self._tasks))
        except (TypeError, ValueError, RuntimeError) as error:
            raise CaptureError(f"`samples`: not numbers ({error}); give the index of each sample's task") from error
        alone = len(given.moving) < 2
        if self._found is None and self._ranks.any([alone], given.moving[0][1].device)[0]:
            self._say_once("waiting", "step %d: one task alone, so what the tasks share is not known yet", window.step)
            self._window = None
            self._walk(given.total(w))
            return
        window.check_weights(w)
        first = self._found is None
        found = self._find(given, own)
        if window.due and window.rows is None:
            found = self._look_again(found, given, own, window.step, first)
        parameters = found.parameters
        if window.rows is None:
            window.rows = Rows(parameters, len(self._tasks), self._keeps_rows)
            if options.combiner is not None:
                window.before = [None if p.grad is None else p.grad.detach().clone() for p in parameters]
        if options.scaler is not None:
            one = torch.ones((), device=given.moving[0][1].device)
            window.scale = options.scaler.scale(one).double()
        with found.way.capturing(given, parameters, window.rows, own, w, window.scale) as total:
            self._walk(total)
        window.add(given, w, numbers)

    @property
    def _keeps_rows(self) -> bool:
        """Whether the rows of all layers are needed at the end of a step, and not their Grams alone."""
        options = self._options
        return options.slabs or options.combiner is not None or options.accumulate > 1 or self._ranks.several

    def _find(self, given: TaskLosses, samples: Samples | None) -> Found:
        """What the tasks share, found once; and the dump, made with it."""
        if self._found is None:
            options = self._options
            found = find(
                self._model,
                self._tasks,
                given,
                samples,
                sides=options.sides,
                combiners=self._combiners,
                way=options.way,
                held=self._ranks.agree(self._log.held),
            )
            attrs = {"config": options.config, **found.attrs(), "seed": int(options.seed)}
            attrs["capture"] |= options.to_json()
            self._ranks.agree(
                lambda: self._log.open(
                    tasks=self._tasks,
                    sides=found.layout(),
                    slabs=options.slabs,
                    scalars=found.scalars(),
                    attrs=attrs,
                )
            )
            if self._ranks.writes:
                print(f"toppo: recording {len(self._tasks)} tasks in {self.path}, every {options.every} steps")
                print("\n".join(f"  {line}" for line in found.summary(self._keeps_rows)))
            self._found = found
        return self._found

    def _look_again(self, found: Found, given: TaskLosses, samples: Samples | None, step: int, first: bool) -> Found:
        """What the first record found out, brought up to date.

        It costs some walks, so it is done where the model has changed, and at records 2, 4, 8 and so on.
        """
        self._records += 1
        modes = tuple(module.training for module in self._model.modules())
        named = tuple((name, id(p), p.requires_grad) for name, p in self._model.named_parameters())
        before, self._state = self._state, (modes, named)
        if first or (before == self._state and self._records & (self._records - 1)):
            return found
        found, news = found.renewed(self._model, given)
        for about, what in news.items():
            self._say_once(about, "%s, step %d: parameter %s %s", self.path, step, about, what)
        if not still_exact(found.way, given, found.parameters, samples):
            self._say_once(
                "way",
                "%s, step %d: the way %r no longer gives the gradients of K walks, so K walks are taken from here on%s",
                self.path,
                step,
                found.way.name,
                "; the later half of the Grams before this step may be wrong" if before == self._state else "",
            )
            found = replace(found, way=Way(refused={found.way.name: f"not exact at step {step}"}))
        self._found = found
        return found

    def _say_once(self, about: str, message: str, *values: object) -> None:
        if about not in self._said:
            self._said.add(about)
            log.warning(message, *values)

    def _finish(self, window: Window) -> None:
        """End a step: the Grams, the combiner's direction, the record."""
        found, rows = self._found, window.rows
        assert found is not None and rows is not None
        device = found.parameters[0].device
        if self._ranks.any([bool(rows.missing)], device)[0]:  # all ranks leave this step out, or none
            self._say_once(
                "rows",
                "step %d: the batch is laid out as in no step before, so it is not recorded%s",
                window.step,
                "" if self._options.combiner is None else ", and the step is along the sum of the losses",
            )
            return
        if self._ranks.several:
            self._ranks.average(rows.filled())
        present = np.array(self._ranks.any(window.present, device))
        losses = self._ranks.mean(window.losses.to(device))
        # Everything that the host needs comes in one transfer.
        host = torch.cat([rows.grams(window.scale).flatten(), losses]).cpu().numpy()
        K = len(self._tasks)
        layer_grams, loss = host[:-K].reshape(-1, K, K), host[-K:]
        by_side = {side: layer_grams[part] for side, part in found.columns.items()}
        scalars: dict[str, Any] = {"loss": loss, **window.numbers}
        if window.weights is not None:
            scalars |= {f"{side}_weights": window.weights for side in found.columns}
        for side, combiner in found.combiners.items():
            scalars |= self._combine(side, combiner, by_side[side].sum(axis=0), loss, window)
        if window.due:
            slabs = {side: rows.slab(part, window.scale) for side, part in found.columns.items() if self._options.slabs}
            self._log.last = window.step  # in every rank, because it decides what is due
            # A number of the wrong shape, or an error of `on_record`, is raised in all ranks, not in the first alone.
            self._ranks.agree(lambda: self._write(window.step, by_side, slabs, scalars, present))

    def _write(
        self,
        step: int,
        by_side: Mapping[str, np.ndarray],
        slabs: Mapping[str, Tensor],
        scalars: Mapping[str, Any],
        present: np.ndarray,
    ) -> None:
        """Record a step, and tell the caller of `record` what was recorded."""
        grams = {f"{side}_layer_gram": grams for side, grams in by_side.items()}
        self._log.write(step, present=present, **grams, **slabs, **scalars)
        if self._options.on_record is not None:
            summed = {side: grams.sum(axis=0) for side, grams in by_side.items()}
            self._options.on_record(step, live_numbers(self._tasks, summed, scalars, present))

    def _combine(
        self, side: str, combiner: Combiner, gram: np.ndarray, loss: np.ndarray, window: Window
    ) -> dict[str, Any]:
        """Put a combiner's direction into `.grad` of one side. Return what the dump keeps of it."""
        found, rows = self._found, window.rows
        assert found is not None and rows is not None
        part = found.columns[side]
        self._require_losses(window.present)
        order = combiner.draw_order(self._orders, len(self._tasks))
        if np.isfinite(gram).all():
            combination = combiner.combine(gram, losses=loss, order=order)
        else:
            self._say_once(side, "step %d: a gradient is not finite, so the step is along their sum", window.step)
            return unsolved_scalars(side, combiner, order, len(self._tasks))
        directions = rows.directions(part, torch.as_tensor(combination.weights))
        for p, before, d in zip(found.parameters[part], window.before[part], directions, strict=True):
            wanted = d if before is None else before + d
            if not p.requires_grad:
                continue
            if p.grad is None:
                p.grad = wanted
            elif p.grad.is_sparse:
                p.grad = wanted if wanted.is_sparse else wanted.to_sparse(p.grad.sparse_dim())
            else:
                p.grad.copy_(wanted)
        return combination_scalars(side, combination, order)


def _own_names(options: Options, combiners: Mapping[str, Combiner]) -> set[str]:
    """Names under which a recorder records numbers of its own."""
    sides = options.sides or (WHOLE,)
    combined = scalar_specs(combiners)
    return {"present", *combined, *(side + end for side in sides for end in (*SIDE_ENDS, "_weights"))}


def _whole(step: Any) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        number = -1
    if number < 0 or isinstance(step, bool):
        raise CaptureError(f"`step={step!r}`: must be a whole number, 0 or more")
    return number
