"""The work of the training thread: it checks the values that it is given, copies them, and hands them over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump.background import Background
from toppo.dump.buffers import Buffers, Minibatch
from toppo.dump.committer import Committer, Written
from toppo.dump.errors import DumpError
from toppo.dump.given import as_array, is_numeric, whole_number
from toppo.dump.schema import MOST_STEPS, Layout, ScalarSpec, fill

Given = Mapping[str, Any]
"""Name of a side or scalar -> its value: numpy, torch on any device, lists of these, or plain numbers."""

SIDE_ENDS = ("", "_gram", "_layer_gram")
"""What follows the name of a side in the names of its slab, its Gram, and the Grams of its layers."""


@dataclass(frozen=True)
class Sample:
    """What a caller gives of one minibatch.

    Attributes:
        slabs: side -> J (K, P).
        grams: side -> G (K, K).
        layer_grams: side -> G of each layer (L, K, K).
        scalars: minibatch scalars by name.
        present: (K,), whether each task took part; None if all did.
    """

    slabs: Given = field(default_factory=dict)
    grams: Given = field(default_factory=dict)
    layer_grams: Given = field(default_factory=dict)
    scalars: Given = field(default_factory=dict)
    present: Any = None


class Intake:
    """Takes the values of one minibatch, snapshot or collect (rollout phase) at a time.

    A value that does not fit raises a `DumpError` that names it, and changes nothing.

    Args:
        where: path or URL of the dump, for messages.
        committer: gets the values, through `background`.
        background: runs the committer.
        buffers: slabs (gradients J) are copied into these.
        last: steps of the last committed (snapshot, stream collect); None where there is none.
    """

    def __init__(
        self,
        where: str,
        committer: Committer,
        background: Background,
        buffers: Buffers,
        last: tuple[int | None, int | None],
    ) -> None:
        self._where, self._committer, self._background, self._buffers = where, committer, background, buffers
        self._layout = committer.header.layout
        planned = (committer.header.n_planned, committer.header.stream_planned)
        self._most, self._most_of_stream = (MOST_STEPS if n is None else n for n in planned)
        # These count what was handed over. The committer counts what is committed.
        self.snapshot, self._collect = committer.header.committed
        self._last, self._last_of_stream = last
        # Minibatches of the current snapshot: all recorded ones, those not handed over yet, those that are written.
        self._recorded: set[int] = set()
        self._waiting: dict[int, Minibatch] = {}
        self._written: Written = {}

    @property
    def layout(self) -> Layout:
        """What the dump holds."""
        return self._layout

    @property
    def begun(self) -> bool:
        """Whether the current snapshot has a minibatch."""
        return bool(self._recorded)

    def take_minibatch(self, minibatch: int, sample: Sample) -> None:
        """Copy one minibatch of the current snapshot.

        Args:
            minibatch: its index within the snapshot.
            sample: its values.
        """
        layout = self._layout
        at = f"snapshot {self.snapshot}, minibatch {minibatch}"
        if not 0 <= minibatch < layout.minibatches or minibatch in self._recorded:
            wrong = "was already recorded" if minibatch in self._recorded else f"is not in 0..{layout.minibatches - 1}"
            raise self._error(f"{at} {wrong}")
        self._check_room(self.snapshot, self._most, "snapshots")
        unknown = sorted((sample.slabs.keys() | sample.grams.keys() | sample.layer_grams.keys()) - layout.sides.keys())
        if unknown:
            raise self._error(f"{at}: unknown side {', '.join(unknown)}; it has {', '.join(layout.sides)}")
        present = self._present(sample.present, at)
        small = self._conform(sample.scalars, layout.minibatch_scalars, at)
        small |= self._grams(sample, ~present, at)
        if layout.absences:
            small["present"] = present.astype(np.int8)
        wanted = self._slabs(sample, at)
        slot = self._buffers.take() if wanted else {}
        for side, slab in wanted.items():
            with np.errstate(over="ignore"):
                np.copyto(slot[side], slab, casting="same_kind")
            slot[side][~present] = np.nan
        self._waiting[minibatch] = Minibatch(slot, tuple(wanted), small)
        self._recorded.add(minibatch)

    def hand_over(self) -> None:
        """Let the background thread write the minibatches taken so far."""
        if not self._waiting:
            return
        snapshot, waiting, written = self.snapshot, self._waiting, self._written
        self._background.submit(lambda: self._committer.write_minibatches(snapshot, waiting, written))
        self._waiting = {}

    def check_step(self, step: Any) -> int:
        """The step of the next snapshot as a number. Raises DumpError if it does not come after the last one."""
        return self._rising(step, self._last, f"snapshot {self.snapshot}")

    def end_snapshot(self, step: Any, collect: Any, scalars: Given) -> None:
        """Let the background thread commit the current snapshot, and begin the next one.

        Args:
            step: steps taken so far.
            collect: index of the collect; None for the index of the snapshot.
            scalars: every declared snapshot scalar, by name.
        """
        layout = self._layout
        at = f"snapshot {self.snapshot}"
        missing = sorted(set(range(layout.minibatches)) - self._recorded)
        if missing:
            raise self._error(f"{at} cannot be committed: minibatches {missing} were not recorded")
        values = self._conform(scalars, layout.snapshot_scalars, at)
        number = self.check_step(step)
        values[layout.step.name] = np.array(number)
        if layout.has_collects:
            values["collect"] = np.array(self.snapshot if collect is None else self._whole(collect, f"{at}: collect"))
        elif collect is not None:
            raise self._error(f"{at}: `collect={collect}` is for runs that count environment steps; leave it out")
        self.hand_over()
        snapshot, written = self.snapshot, self._written
        self._background.submit(lambda: self._committer.commit_snapshot(snapshot, written, values))
        self._recorded, self._written = set(), {}
        self.snapshot += 1
        self._last = number

    def take_stream(self, collect: int, grams: Given, step: Any) -> None:
        """Copy one collect of the Gram stream, and let the background thread commit it.

        Args:
            collect: index of the collect, which must be the next one.
            grams: side -> Grams (n, K, K) of the n entries of a collect, for every side.
            step: steps taken so far.
        """
        layout = self._layout
        if layout.stream_entries is None:
            raise self._error("made without a Gram stream; create it with `stream` as (collects, entries)")
        if collect != self._collect:
            raise self._error(f"stream collect {collect} is out of order; {self._collect} is next")
        self._check_room(collect, self._most_of_stream, "stream collects")
        if grams.keys() != layout.sides.keys():
            raise self._error(f"stream collect {collect}: Grams of {sorted(grams)}, expected {sorted(layout.sides)}")
        K = len(layout.tasks)
        at = f"stream collect {collect}"
        values = {
            f"{side}_gram_stream": self._shaped(value, (layout.stream_entries, K, K), "f8", f"{at}: {side} Grams")
            for side, value in grams.items()
        }
        number = self._rising(step, self._last_of_stream, at)
        values[layout.stream_step] = np.array(number)
        self._background.submit(lambda: self._committer.commit_stream(collect, values))
        self._collect += 1
        self._last_of_stream = number

    def declare(self, values: Given) -> None:
        """Add to the layout the minibatch scalars that it lacks, with the shapes of these values.

        They are floating-point numbers, also where the first value is whole: the next one may not be.

        Args:
            values: scalars by name; (K,), (K, K) or single numbers.
        """
        layout = self._layout
        scalars = dict(layout.minibatch_scalars)
        added = [name for name in values if name not in scalars]
        if not added:
            return
        K = len(layout.tasks)
        dims: dict[tuple[int, ...], tuple[str, ...]] = {(): (), (K, K): ("task", "task_j"), (K,): ("task",)}
        for name in added:
            array = as_array(values[name])
            if array.shape not in dims or not is_numeric(array):
                what = f"{name} is {array.dtype} {array.shape}: neither a side ({', '.join(layout.sides)})"
                raise self._error(f"{what} nor numbers of shape ({K},), ({K}, {K}) or ()")
            scalars[name] = ScalarSpec(dims[array.shape])
        late = dict(layout.late)
        if self.snapshot > 0:
            late |= dict.fromkeys(added, self.snapshot)
            if len(late) > layout.spare:
                raise self._error(
                    f"{', '.join(added)} cannot be added after the first record: {len(layout.late)} of "
                    f"{layout.spare} such names are taken; declare it in `minibatch_scalars`"
                )
        layout = replace(layout, minibatch_scalars=scalars, late=late)
        layout.check()
        self._background.run(lambda: self._committer.declare(layout, added))
        self._layout = layout

    def without_room(self, names: Iterable[str]) -> list[str]:
        """Those of these names that the dump does not have and cannot add any more.

        Args:
            names: names of values, as `DumpWriter.record` takes them.
        """
        layout = self._layout
        if self.snapshot == 0:
            return []
        known = {side + end for side in layout.sides for end in SIDE_ENDS} | layout.minibatch_scalars.keys()
        new = [name for name in names if name not in known]
        return new[layout.spare - len(layout.late) :]

    def completed(self, scalars: Given) -> dict[str, Any]:
        """Minibatch scalars with NaN (-1 for whole numbers) for those that are not given."""
        sizes = self._layout.sizes(0, 0)
        specs = self._layout.minibatch_scalars
        missing = {
            name: np.full([sizes[dim] for dim in spec.dims], fill(spec.dtype))
            for name, spec in specs.items()
            if name not in scalars
        }
        return missing | dict(scalars)

    def _error(self, problem: str) -> DumpError:
        return DumpError(f"{self._where}: {problem}", path=self._where)

    def _check_room(self, index: int, most: int, what: str) -> None:
        if index < most:
            return
        if most == MOST_STEPS:
            raise self._error(f"holds {most} {what}, the most that a dump can hold; record less often")
        raise self._error(f"was created for {most} {what} and holds them all; plan for more")

    def _conform(self, values: Given, specs: Mapping[str, ScalarSpec], at: str) -> dict[str, npt.NDArray[Any]]:
        if values.keys() != specs.keys():
            wrong = [f"{n} is missing" for n in specs if n not in values] + [
                f"{n} is unknown" for n in values if n not in specs
            ]
            raise self._error(f"{at}: {', '.join(wrong)}; record exactly the declared scalars")
        sizes = self._layout.sizes(0, 0)
        return {
            name: self._shaped(values[name], tuple(sizes[d] for d in spec.dims), spec.dtype, f"{at}: {name}")
            for name, spec in specs.items()
        }

    def _shaped(self, value: Any, shape: tuple[int, ...], dtype: str, what: str) -> npt.NDArray[Any]:
        array = as_array(value)
        if array.shape != shape or not is_numeric(array) or (dtype[0] == "i" and array.dtype.kind == "f"):
            raise self._error(f"{what} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        return array.astype(dtype)  # always a copy, because the caller may change its array afterwards

    def _present(self, given: Any, at: str) -> npt.NDArray[np.bool_]:
        K = len(self._layout.tasks)
        if given is None:
            return np.ones(K, bool)
        present: npt.NDArray[np.bool_] = self._shaped(given, (K,), "i1", f"{at}: present") != 0
        if not present.all() and not self._layout.absences:
            raise self._error(f"{at}: a task is absent, and the dump was created without `absences`; create it with")
        return present

    def _grams(self, sample: Sample, absent: npt.NDArray[np.bool_], at: str) -> dict[str, npt.NDArray[Any]]:
        """The Grams that are given, or follow from those, by array name. Rows of absent tasks are NaN."""
        layout = self._layout
        K = len(layout.tasks)
        found: dict[str, npt.NDArray[Any]] = {}
        for side, value in sample.layer_grams.items():
            shape = (len(layout.sides[side]), K, K)
            layers = self._shaped(value, shape, "f8", f"{at}: {side} layer Grams")
            if layout.layer_grams:
                found[f"{side}_layer_gram"] = layers
            if side not in sample.grams:
                found[f"{side}_gram"] = layers.sum(axis=0)
        for side, value in sample.grams.items():
            found[f"{side}_gram"] = self._shaped(value, (K, K), "f8", f"{at}: {side} gram")
        for gram in found.values():
            gram[..., absent, :] = gram[..., :, absent] = np.nan
        return found

    def _slabs(self, sample: Sample, at: str) -> dict[str, npt.NDArray[Any]]:
        """The slabs to copy: those that the dump keeps, or needs for a Gram that is not given."""
        layout = self._layout
        wanted = {}
        for side in layout.sides:
            has_gram = side in sample.grams or side in sample.layer_grams
            needed = layout.slabs or not has_gram or (layout.layer_grams and side not in sample.layer_grams)
            if not needed:
                continue
            if side not in sample.slabs:
                raise self._error(f"{at}: side {side!r} came without its slab{self._without_slab(has_gram)}")
            slab = as_array(sample.slabs[side])
            expected = (len(layout.tasks), layout.parameters(side))
            if slab.shape != expected or not is_numeric(slab):
                raise self._error(
                    f"{at}: {side} slab is {slab.dtype} {slab.shape}, expected floats {expected}: (tasks, parameters)"
                )
            wanted[side] = slab
        return wanted

    def _without_slab(self, has_gram: bool) -> str:
        if not has_gram:
            return ""
        if self._layout.slabs:
            return "; give it, or create the dump with `slabs=False` to record Grams alone"
        return "; give it, or its `layer_grams`"

    def _rising(self, given: Any, last: int | None, at: str) -> int:
        name = self._layout.step.name
        step = self._whole(given, f"{at}: {name}")
        if last is not None and step <= last:
            wrong = "was already recorded" if step == last else f"comes before the last one, {last}"
            raise self._error(f"{at}: {name} {step} {wrong}; steps must rise, or resume the dump at that step")
        return step

    def _whole(self, given: Any, what: str) -> int:
        number = whole_number(given)
        if number is None:
            raise self._error(f"{what} is {given!r}; it must be a whole number, 0 or more")
        return number
