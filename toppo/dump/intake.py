"""The work of the training thread: it checks the values that it is given, copies them, and hands them over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toppo.dump.background import Background
from toppo.dump.buffers import Buffers, Minibatch
from toppo.dump.committer import Committer, Written
from toppo.dump.errors import DumpError
from toppo.dump.schema import Layout, ScalarSpec

Given = Mapping[str, Any]
"""Name of a side or scalar -> its value: numpy, torch on any device, or plain numbers."""


class Intake:
    """Takes the values of one minibatch, snapshot or collect (rollout phase) at a time.

    A value that does not fit raises a `DumpError` that names it, and changes nothing.

    Args:
        where: path or URL of the dump, for messages.
        committer: gets the values, through `background`.
        background: runs the committer.
        buffers: slabs (gradients J) are copied into these.
    """

    def __init__(self, where: str, committer: Committer, background: Background, buffers: Buffers) -> None:
        self._where, self._committer, self._background, self._buffers = where, committer, background, buffers
        self._layout = committer.header.layout
        self._allocated = committer.header.allocated
        # These count what was handed over. The committer counts what is committed.
        self.snapshot, self._collect = committer.header.committed
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

    def take_minibatch(self, minibatch: int, slabs: Given, grams: Given, scalars: Given) -> None:
        """Copy one minibatch of the current snapshot.

        Args:
            minibatch: its index within the snapshot.
            slabs: side -> J (K, P).
            grams: side -> G (K, K).
            scalars: every declared minibatch scalar, by name.
        """
        layout = self._layout
        at = f"snapshot {self.snapshot}, minibatch {minibatch}"
        if not 0 <= minibatch < layout.minibatches or minibatch in self._recorded:
            wrong = "was already recorded" if minibatch in self._recorded else f"is not in 0..{layout.minibatches - 1}"
            raise self._error(f"{at} {wrong}")
        self._check_room(self.snapshot, self._allocated[0], "snapshots")
        unknown = sorted((slabs.keys() | grams.keys()) - layout.sides.keys())
        if unknown:
            raise self._error(f"{at}: unknown side {', '.join(unknown)}; it has {', '.join(layout.sides)}")
        for side in layout.sides:
            if side not in slabs and (layout.slabs or side not in grams):
                raise self._error(f"{at}: side {side!r} came without its slab")
        K = len(layout.tasks)
        small = self._conform(scalars, layout.minibatch_scalars, at)
        small |= {
            f"{side}_gram": self._shaped(value, (K, K), "f8", f"{at}: {side} gram") for side, value in grams.items()
        }
        # A slab is copied only if the dump keeps it or needs it for the Gram.
        wanted = {side: _host(slab) for side, slab in slabs.items() if layout.slabs or side not in grams}
        for side, slab in wanted.items():
            if slab.shape != (K, layout.parameters(side)) or slab.dtype.kind != "f":
                raise self._error(
                    f"{at}: {side} slab is {slab.dtype} {slab.shape}, "
                    f"expected floats {(K, layout.parameters(side))}: (tasks, parameters)"
                )
        slot = self._buffers.take() if wanted else {}
        for side, slab in wanted.items():
            with np.errstate(over="ignore"):
                np.copyto(slot[side], slab, casting="same_kind")
        self._waiting[minibatch] = Minibatch(slot, tuple(wanted), small)
        self._recorded.add(minibatch)

    def hand_over(self) -> None:
        """Let the background thread write the minibatches taken so far."""
        if not self._waiting:
            return
        snapshot, waiting, written = self.snapshot, self._waiting, self._written
        self._background.submit(lambda: self._committer.write_minibatches(snapshot, waiting, written))
        self._waiting = {}

    def end_snapshot(self, env_steps: int, collect: int, scalars: Given) -> None:
        """Let the background thread commit the current snapshot, and begin the next one.

        Args:
            env_steps: environment steps taken so far.
            collect: index of the collect.
            scalars: every declared snapshot scalar, by name.
        """
        layout = self._layout
        at = f"snapshot {self.snapshot}"
        missing = sorted(set(range(layout.minibatches)) - self._recorded)
        if missing:
            raise self._error(f"{at} cannot be committed: minibatches {missing} were not recorded")
        values = self._conform(scalars, layout.snapshot_scalars, at)
        values |= {"env_steps": np.array(int(env_steps)), "collect": np.array(int(collect))}
        self.hand_over()
        snapshot, written = self.snapshot, self._written
        self._background.submit(lambda: self._committer.commit_snapshot(snapshot, written, values))
        self._recorded, self._written = set(), {}
        self.snapshot += 1

    def take_stream(self, collect: int, grams: Given, env_steps: int) -> None:
        """Copy one collect of the Gram stream, and let the background thread commit it.

        Args:
            collect: index of the collect, which must be the next one.
            grams: side -> Grams (n, K, K) of the n entries of a collect, for every side.
            env_steps: environment steps taken so far.
        """
        layout = self._layout
        if layout.stream_entries is None:
            raise self._error("made without a Gram stream; create it with `stream` as (collects, entries)")
        if collect != self._collect:
            raise self._error(f"stream collect {collect} is out of order; {self._collect} is next")
        self._check_room(collect, self._allocated[1], "stream collects")
        if grams.keys() != layout.sides.keys():
            raise self._error(f"stream collect {collect}: Grams of {sorted(grams)}, expected {sorted(layout.sides)}")
        K = len(layout.tasks)
        at = f"stream collect {collect}"
        values = {
            f"{side}_gram_stream": self._shaped(value, (layout.stream_entries, K, K), "f8", f"{at}: {side} Grams")
            for side, value in grams.items()
        }
        values["stream_env_steps"] = np.array(int(env_steps))
        self._background.submit(lambda: self._committer.commit_stream(collect, values))
        self._collect += 1

    def declare(self, values: Given) -> None:
        """Add to the layout the minibatch scalars that it lacks, with the shapes of these values.

        Args:
            values: scalars by name; (K,), (K, K) or single numbers.
        """
        K = len(self._layout.tasks)
        dims: dict[tuple[int, ...], tuple[str, ...]] = {(): (), (K, K): ("task", "task_j"), (K,): ("task",)}
        scalars = dict(self._layout.minibatch_scalars)
        added = {name: _host(value) for name, value in values.items() if name not in scalars}
        for name, array in added.items():
            if array.shape not in dims or array.dtype.kind not in "fiub":
                sides = ", ".join(self._layout.sides)
                what = f"{name} is {array.dtype} {array.shape}: neither a side ({sides})"
                raise self._error(f"{what} nor numbers of shape ({K},), ({K}, {K}) or ()")
            scalars[name] = ScalarSpec(dims[array.shape], "f8" if array.dtype.kind == "f" else "i8")
        if not added:
            return
        layout = replace(self._layout, minibatch_scalars=scalars)
        layout.check()
        self._background.flush()
        self._committer.declare(layout, list(added))
        self._layout = layout

    def _error(self, problem: str) -> DumpError:
        return DumpError(f"{self._where}: {problem}", path=self._where)

    def _check_room(self, index: int, allocated: int, what: str) -> None:
        if index >= allocated:
            raise self._error(f"was created for {allocated} {what} and holds them all; plan for more")

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
        array = _host(value)
        if array.shape != shape or array.dtype.kind not in "fiub" or (dtype[0] == "i" and array.dtype.kind == "f"):
            raise self._error(f"{what} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        return array.astype(dtype)  # always a copy, because the caller may change its array afterwards


def _host(value: Any) -> npt.NDArray[Any]:
    """A value as a numpy array. A torch tensor is copied from its device. Its method `detach` tells it from others."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):
            value = value.float()
    return np.asarray(value)
