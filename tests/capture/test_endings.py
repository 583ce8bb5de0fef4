"""How a recording ends and goes on: counted on, resumed, on a full disk, and with mistakes on the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toppo
from tests.capture.networks import TASKS, all_samples, build
from toppo.capture.recorder import Recorder, record
from toppo.dump import DumpWriter, verify
from toppo.dump.files import LocalFiles

ROOT = Path(__file__).parents[2]


def start(path: Path, model: nn.Module, **options: Any) -> Recorder:
    return record(path / "dump", model, tasks=TASKS, **{"every": 1, "way": "walks", **options})


def train(path: Path, steps: Sequence[int | None], **options: Any) -> toppo.Dump:
    """The dump after a run. None: the recorder counts."""
    model, x = build("mlp")
    with start(path, model, **options) as recorder:
        for step in steps:
            recorder.backward(all_samples(model(x)), step=step)
    return toppo.open_dump(path / "dump")


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


# --- counting on -----------------------------------------------------------------------------------------------------


def test_a_resumed_run_counts_on_from_the_last_step(tmp_path: Path) -> None:
    for part in range(4):
        dump = train(tmp_path, [None] * 39, every=20, exist="resume")
        assert dump.attrs["capture"]["last_step"] == 39 * (part + 1) - 1
    assert dump.steps.tolist() == [0, 20, 40, 60, 80, 100, 120, 140]
    assert verify(dump).ok


def test_a_run_that_recorded_nothing_is_counted_too(tmp_path: Path) -> None:
    train(tmp_path, [None] * 3, every=20)
    dump = train(tmp_path, [None] * 4, every=20, exist="resume")
    assert (dump.steps.tolist(), dump.complete, dump.attrs["capture"]["last_step"]) == ([0], True, 6)
    assert train(tmp_path, [None] * 14, every=20, exist="resume").steps.tolist() == [0, 20]


def test_an_exception_counts_its_steps(tmp_path: Path) -> None:
    model, x = build("mlp")
    with pytest.raises(KeyboardInterrupt), start(tmp_path, model, every=10) as recorder:
        for _ in range(15):
            recorder.backward(all_samples(model(x)))
        raise KeyboardInterrupt
    assert toppo.open_dump(tmp_path / "dump").attrs["capture"]["last_step"] == 14
    assert train(tmp_path, [None] * 6, every=10, exist="resume").steps.tolist() == [0, 10, 20]


def test_a_run_that_was_not_closed_needs_the_step(tmp_path: Path) -> None:
    train(tmp_path, range(7), every=5)
    model, x = build("mlp")
    lost = start(tmp_path, model, every=5, exist="resume")
    for _ in range(6):
        lost.backward(all_samples(model(x)))
    lost.flush()  # as if the process were killed here
    for steps, message in (([None], "was not closed.*the last record is of step 10.*step=step"), ([13], "")):
        if message:
            with pytest.raises(toppo.UsageError, match=message) as caught:
                train(tmp_path, steps, every=5, exist="resume")
            assert "\n" not in str(caught.value)
        else:
            assert train(tmp_path, [13, None, None], every=5, exist="resume").steps.tolist() == [0, 5, 10, 15]


def test_a_run_that_went_back_and_recorded_nothing_keeps_the_records(tmp_path: Path) -> None:
    train(tmp_path, range(25), every=10)
    dump = train(tmp_path, range(15, 18), every=10, exist="resume")
    assert (dump.steps.tolist(), dump.attrs["capture"]["last_step"]) == ([0, 10, 20], None)
    with pytest.raises(toppo.UsageError, match="give the number of every step"):
        train(tmp_path, [None], every=10, exist="resume")


@pytest.mark.parametrize("last", [-1, "3", 0, True, {"a": 1}])
def test_a_last_step_that_cannot_be_is_not_believed(last: object, tmp_path: Path) -> None:
    train(tmp_path, range(3))
    with DumpWriter.resume(tmp_path / "dump") as writer:
        writer.note(capture={"last_step": last})
    with pytest.raises(toppo.UsageError, match="give the number of every step"):
        train(tmp_path, [None], exist="resume")


def test_a_resumed_run_draws_new_orders_and_the_same_run_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for _ in range(2):
            dump = train(tmp_path / name, [None] * 6, combiner="pcgrad", exist="resume")
    orders, again = (toppo.open_dump(tmp_path / name / "dump").values("shared_order")[:, 0] for name in ("a", "b"))
    assert dump.steps.tolist() == list(range(12))
    np.testing.assert_array_equal(orders, again)
    assert not (orders[:6] == orders[6:]).all()


def test_a_batch_without_a_task_resumes_with_the_parameters_of_the_dump(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})

    def losses(x: Tensor) -> dict[str, Tensor]:
        first = model["a"](x)
        second = model["b"](first)
        return {"left": first.square().mean(), "middle": second.square().mean(), "right": second.sin().mean()}

    with start(tmp_path, model) as recorder:
        recorder.backward(losses(torch.ones(2, 4)))
    some = losses(torch.ones(2, 4))
    del some["right"]
    with start(tmp_path, model, exist="resume") as recorder:
        recorder.backward(some)
        recorder.backward(losses(torch.ones(2, 4)))
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == [0, 1, 2] and dump.present[1, 0].tolist() == [True, True, False]
    np.testing.assert_allclose(dump.values("shared_gram")[2], dump.values("shared_gram")[0])


# --- going on from a checkpoint --------------------------------------------------------------------------------------


@pytest.mark.parametrize("combiner", ["pcgrad", "famo", "gradvac", "dwa:period=2", "taskforce:buffer=8,batch=4"])
def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(combiner: str, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"

    def run(name: str, steps: int, resumed: bool = False) -> tuple[dict[str, Tensor], toppo.Dump]:
        (tmp_path / name).mkdir(exist_ok=True)
        model, x = build("mlp")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with start(tmp_path / name, model, combiner=combiner, exist="resume") as recorder:
            if resumed:
                state = torch.load(file, weights_only=True)
                model.load_state_dict(state["model"])
                recorder.load_state_dict(state["recorder"])
            for _ in range(steps):
                optimizer.zero_grad()
                recorder.backward(all_samples(model(x)))
                optimizer.step()
            torch.save({"model": model.state_dict(), "recorder": recorder.state_dict()}, file)
        return model.state_dict(), toppo.open_dump(tmp_path / name / "dump")

    whole, dump = run("whole", 12)
    run("parts", 5)
    parts, resumed = run("parts", 7, resumed=True)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert resumed.steps.tolist() == dump.steps.tolist() == list(range(12))
    for name in ("shared_weights", *(["shared_order"] if combiner == "pcgrad" else [])):
        np.testing.assert_array_equal(dump.values(name), resumed.values(name))


def test_a_state_counts_the_steps_of_a_run_that_was_killed(tmp_path: Path) -> None:
    model, x = build("mlp")
    killed = start(tmp_path, model, accumulate=2)
    for _ in range(7):
        killed.backward(all_samples(model(x)))
    state = killed.state_dict()
    killed.flush()
    assert state["step"] == 3  # its second half is missing, so it is done again
    with start(tmp_path, model, accumulate=2, exist="resume") as recorder:
        recorder.load_state_dict(state)
        assert recorder.state_dict() == state
        for _ in range(4):
            recorder.backward(all_samples(model(x)))
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [0, 1, 2, 3, 4]


def test_a_state_of_no_step_changes_nothing(tmp_path: Path) -> None:
    model, x = build("mlp")
    state = start(tmp_path, model, combiner="pcgrad").state_dict()
    assert state["step"] is None
    orders = []
    for name in ("fresh", "loaded"):
        (tmp_path / name).mkdir()
        with start(tmp_path / name, model, combiner="pcgrad") as recorder:
            if name == "loaded":
                recorder.load_state_dict(state)
            recorder.backward(all_samples(model(x)))
        orders.append(toppo.open_dump(tmp_path / name / "dump").values("shared_order"))
    np.testing.assert_array_equal(*orders)


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model, x = build("mlp")
    famo, plain = start(tmp_path, model, combiner="famo"), start(tmp_path, model)
    famo.backward(all_samples(model(x)))
    state = famo.state_dict()
    pcgrad = start(tmp_path, model, combiner="pcgrad", exist="new")
    for recorder, wrong, message in (
        (plain, state, "combiners of shared, and this recorder has combiners of no side; give `toppo.record` the"),
        (pcgrad, state, "pcgrad carries nothing, but the state to restore holds last_losses, logits"),
        (plain, {}, "this is not the state of a recorder; give what `recorder.state_dict"),
        (plain, [1], "this is not the state of a recorder"),
        (plain, {**plain.state_dict(), "orders": {"state": 1}}, "this is not the state of a recorder"),
        (famo, state, "a step was taken already; load the state before the first `backward`"),
    ):
        with pytest.raises(toppo.ToppoError, match=message) as caught:
            recorder.load_state_dict(wrong)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_a_state_that_fits_one_side_changes_neither(tmp_path: Path) -> None:
    model, x = build("mlp")
    sides = {"early": model.encoder[:2], "late": model.encoder[2:]}
    trained, fresh = (
        start(tmp_path, model, sides=sides, combiner={"early": "famo", "late": late}, exist="new")
        for late in ("dwa", "pcgrad")
    )
    trained.backward(all_samples(model(x)))
    before = fresh.state_dict()
    with pytest.raises(toppo.ToppoError, match="pcgrad carries nothing"):
        fresh.load_state_dict(trained.state_dict())
    assert fresh.state_dict() == before


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["a record", "a new number", "flush", "close"])
def test_a_full_disk_stops_the_recording_and_not_the_training(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, x = build("mlp")
    with start(tmp_path, model) as recorder:
        recorder.backward(all_samples(model(x)))
        recorder.flush()
        with monkeypatch.context() as patch:
            patch.setattr(LocalFiles, "write", full)
            patch.setattr(LocalFiles, "replace", full)
            for _ in range(3 if call != "close" else 0):
                model.zero_grad()
                recorder.backward(all_samples(model(x)), **({"late": 1.0} if call == "a new number" else {}))
                if call == "flush":
                    recorder.flush()
            recorder.close()
    assert caplog.text.count("recording has stopped, and the training goes on") == 1
    assert "free some space and resume" in caplog.text
    assert model.encoder[0].weight.grad is not None
    assert toppo.open_dump(tmp_path / "dump").steps.tolist() == [0]
    assert train(tmp_path, range(1, 3), exist="resume").steps.tolist() == [0, 1, 2]
    assert verify(tmp_path / "dump").ok


@pytest.mark.parametrize("exist", ["error", "resume"])
def test_a_full_disk_at_the_first_record_is_one_line(
    exist: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exist == "resume":
        train(tmp_path, range(2))
    model, x = build("mlp")
    recorder = start(tmp_path, model, exist=exist)
    with monkeypatch.context() as patch:
        for name in ("write", "replace"):
            patch.setattr(LocalFiles, name, full)
        with pytest.raises(
            toppo.DumpError, match=r"cannot begin \(No space left on device\); free some space"
        ) as caught:
            recorder.backward(all_samples(model(x)))
    assert "\n" not in str(caught.value)
    recorder.close()
    train(tmp_path, range(5, 7), exist="resume")


# --- mistakes on the way ---------------------------------------------------------------------------------------------


def test_more_new_numbers_than_a_dump_can_add_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, x = build("mlp")
    with caplog.at_level(logging.WARNING), start(tmp_path, model) as recorder:
        for i in range(36):
            losses = dict(zip(TASKS, all_samples(model(x)), strict=True))
            if i == 35:
                del losses["right"]
            recorder.backward(losses, **{f"n{i}": float(i)})
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == list(range(36))
    assert "n32" in dump and "n33" not in dump  # n0 was there at the first record
    assert dump.values("present")[-1, 0].tolist() == [1, 1, 0]
    assert caplog.text.count("is not recorded") == 1 and "'n33' is not recorded" in caplog.text


def test_a_callback_that_raises_ends_the_training_after_the_record(tmp_path: Path) -> None:
    def live(step: int, numbers: dict[str, float]) -> None:
        if step == 2:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        train(tmp_path, range(5), on_record=live)
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == [0, 1, 2] and not dump.complete


def test_a_step_that_was_not_full_is_told_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for calls, told in ((3, "without step 0: it had 3 of 4 calls of `backward`"), (4, ""), (5, "")):
        model, x = build("mlp")
        with record(tmp_path / f"dump{calls}", model, tasks=TASKS, accumulate=4) as recorder:
            for _ in range(calls):
                recorder.backward(all_samples(model(x)))
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(f"toppo: recorded in {tmp_path}/dump{calls}") and "look at it with" in last
        assert told in last if told else "without" not in last
        assert len(toppo.open_dump(tmp_path / f"dump{calls}").steps) == (calls >= 4)


FORKED = """
import os, sys
import torch, toppo
from torch import nn
model = nn.Linear(4, 2)
step = lambda recorder: recorder.backward(((model(torch.randn(5, 4)) - 1) ** 2).mean(0))
with toppo.record(sys.argv[1], model, tasks=["a", "b"], every=1, way="walks") as recorder:
    step(recorder)
    child = os.fork()
    if child == 0:
        recorder.flush()
        recorder.close()
        os._exit(0)
    os.waitpid(child, 0)
    step(recorder)
    recorder.close()
    recorder.flush()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_and_a_flush_after_close_wait_for_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path / "dump")]
    done = subprocess.run(command, cwd=ROOT, timeout=120, check=True, capture_output=True, text=True)
    assert done.stderr.count("this process was forked from the one that writes") == 1
    assert done.stdout.count("recorded in") == 1
    dump = toppo.open_dump(tmp_path / "dump")
    assert dump.steps.tolist() == [0, 1] and dump.complete
