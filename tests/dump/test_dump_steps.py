"""Steps rise, a dump can be cut at one, and a dump that nobody planned grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriter, header, open_dump, verify


def create(path: Path, **changes: Any) -> DumpWriter:
    return DumpWriter.create(path, tasks=["a", "b"], sides={"t": 3}, **changes)


def record(writer: DumpWriter, step: Any, value: float = 0.0) -> None:
    writer.record(step=step, t=np.full((2, 3), value, np.float32), loss=[value, value])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (10, "snapshot 1: step 10 was already recorded; steps must rise, or resume the dump at that step"),
        (3, "snapshot 1: step 3 comes before the last one, 10; steps must rise"),
        (10.5, "snapshot 1: step is 10.5; it must be a whole number, 0 or more"),
        (np.float32(11), r"snapshot 1: step is np.float32\(11.0\); it must be"),
        (torch.tensor(11.0), r"snapshot 1: step is tensor\(11.\); it must be"),
        ("11", "snapshot 1: step is '11'; it must be"),
        (-1, "snapshot 1: step is -1; it must be"),
        (2**63, "it must be a whole number"),
        (None, "snapshot 1: step is None"),
    ],
)
def test_a_step_that_does_not_rise_is_refused(store: Path, step: Any, message: str) -> None:
    writer = create(store)
    record(writer, 10)
    with pytest.raises(DumpError, match=message):
        record(writer, step)
    with pytest.raises(DumpError, match=message):
        writer.record_minibatch(0, slabs={"t": np.ones((2, 3))}, scalars={"loss": [0, 0]})
        writer.commit_snapshot(step=step)
    writer.commit_snapshot(step=11)
    writer.close()
    assert open_dump(store).steps.tolist() == [10, 11]


def test_whole_numbers_of_any_type(store: Path) -> None:
    with create(store) as writer:
        for step in (np.int32(1), np.uint8(2), torch.tensor(3), np.array(4), True + 4):
            record(writer, step)
    assert open_dump(store).steps.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (5, 1), (10, 1), (11, 2), (20, 2), (30, 3), (31, 4), (99, 4)])
@pytest.mark.parametrize("complete", [True, False])
def test_a_dump_is_cut_at_a_step(store: Path, step: int, kept: int, complete: bool) -> None:
    """What was recorded at this step or later is gone, and this step can be recorded again."""
    writer = create(store, stream=(None, 1))
    for n in range(4):
        writer.record_stream(n, grams={"t": np.eye(2)[None]}, step=10 * n)
        record(writer, 10 * n, n)
    writer.close() if complete else writer.abandon()
    with DumpWriter.resume(store, step=step) as writer:
        assert (writer.n_committed, writer.stream_committed) == (kept, kept)
        if step > 30:
            with pytest.raises(DumpError, match="step 30 was already recorded"):
                record(writer, 30)
        record(writer, max(step, 10 * (kept - 1) + 1), -1.0)
    dump = open_dump(store)
    np.testing.assert_array_equal(dump.values("loss")[:, 0, 0], [*range(kept), -1])
    assert verify(store).ok


def test_a_step_to_resume_at_that_is_none(store: Path) -> None:
    create(store).close()
    with pytest.raises(DumpError, match=r"`step=2\.5`: must be a whole number, 0 or more"):
        DumpWriter.resume(store, step=2.5)
    with DumpWriter.resume(store, step=7) as writer:
        record(writer, 7)


def test_streams_rise_too(store: Path) -> None:
    writer = run.create(store)
    grams = {side: run.grams(0) for side in run.WIDTHS}
    writer.record_stream(0, grams=grams, step=5)
    with pytest.raises(DumpError, match="stream collect 1: env_steps 5 was already recorded"):
        writer.record_stream(1, grams=grams, step=5)
    writer.abandon()
    writer = DumpWriter.resume(store)
    with pytest.raises(DumpError, match="stream collect 1: env_steps 4 comes before the last one, 5"):
        writer.record_stream(1, grams=grams, step=4)
    writer.abandon()


@pytest.mark.parametrize("resumed", [None, 3, 4, 8, 9])
def test_a_dump_that_nobody_planned_grows(store: Path, monkeypatch: pytest.MonkeyPatch, resumed: int | None) -> None:
    monkeypatch.setattr(header, "UNPLANNED", 4)
    writer = create(store, stream=(None, 1))
    for n in range(19):
        if n == resumed:
            writer.abandon()
            assert verify(store).ok
            writer = DumpWriter.resume(store)
        writer.record_stream(n, grams={"t": np.eye(2)[None]}, step=n)
        record(writer, n, n)
        if n in (3, 4, 8):
            writer.flush()
            live = open_dump(store)
            assert live["snapshot"].values.tolist() == list(range(n + 1))
            report = verify(store)
            assert report.damages == ()
            assert len(report.notes) == 1  # that it is not complete
    writer.close()
    dump = open_dump(store)
    np.testing.assert_array_equal(dump.values("loss")[:, 0, 0], np.arange(19))
    np.testing.assert_array_equal(dump.values("snapshot"), np.arange(19))
    report = verify(store)
    assert (report.damages, report.notes) == ((), ())
    np.testing.assert_array_equal(xr.open_zarr(store, consolidated=False)["snapshot"], np.arange(19))


def test_no_dump_is_endless(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toppo.dump import intake

    monkeypatch.setattr(intake, "MOST_STEPS", 2)
    writer = create(store)
    record(writer, 0)
    record(writer, 1)
    with pytest.raises(DumpError, match="holds 2 snapshots, the most that a dump can hold; record less often"):
        record(writer, 2)
    writer.close()


@pytest.mark.slow
def test_ten_thousand_and_one_records(store: Path) -> None:
    with create(store, slabs=False, commit_every=60) as writer:
        for n in range(10_001):
            writer.record(step=n, t_gram=np.eye(2))
    assert open_dump(store).steps.tolist() == list(range(10_001))
