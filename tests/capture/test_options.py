"""What `record` refuses before the training begins: each in one line that names the option."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import toppo
from tests.capture.networks import TASKS, Heads, all_samples, build
from toppo.capture.recorder import record
from toppo.combiners import FairGrad

OPTIONS: dict[str, tuple[Callable[[Heads], dict[str, Any]], str]] = {
    "every 0": (lambda m: {"every": 0}, "`every=0`"),
    "every 1.5": (lambda m: {"every": 1.5}, "`every=1.5`"),
    "accumulate 0": (lambda m: {"accumulate": 0}, "`accumulate=0`"),
    "seed below 0": (lambda m: {"seed": -1}, "`seed=-1`: must be a whole number, at least 0"),
    "no seed": (lambda m: {"seed": None}, "`seed=None`"),
    "unknown way": (lambda m: {"way": "guess"}, "`way=guess`"),
    "unknown exist": (lambda m: {"exist": "maybe"}, "`exist=maybe`"),
    "slabs in words": (lambda m: {"slabs": "no"}, "`slabs=no`: must be True or False"),
    "one task": (lambda m: {"tasks": ["one"]}, "two or more"),
    "two tasks of one name": (lambda m: {"tasks": ["one", "one"]}, "distinct"),
    "tasks in one word": (lambda m: {"tasks": "ab"}, "must be a list"),
    "tasks that are lists": (lambda m: {"tasks": [["a"], ["b"]]}, "must be a list"),
    "a mistyped combiner": (lambda m: {"combiner": "fairgrat"}, "did you mean 'fairgrad'"),
    "a number as combiner": (lambda m: {"combiner": 3}, "`combiner`: a int; give a spec"),
    "a number as combiner of a side": (lambda m: {"combiner": {"shared": 3}}, "`combiner`: 'shared' has a int"),
    "a class as combiner": (lambda m: {"combiner": FairGrad}, "`combiner`: FairGrad; give a spec"),
    "a combiner of no side": (lambda m: {"combiner": {"shard": "mean"}}, "no side 'shard'; did you mean 'shared'"),
    "a parameter as side": (lambda m: {"sides": {"x": m.encoder[0].weight}}, "`sides`: 'x' is a Parameter"),
    "no side": (lambda m: {"sides": {}}, "`sides`: is empty; give a dict"),
    "sides without names": (lambda m: {"sides": [m.encoder]}, "`sides`: a list; give a dict"),
    "a side of another model": (lambda m: {"sides": {"x": nn.Linear(2, 2)}}, "'x' has no parameter of the model"),
    "a side without parameters": (lambda m: {"sides": {"x": nn.ReLU()}}, "'x' has no parameter of the model"),
    "a side that cannot have its name": (lambda m: {"sides": {"a/b": m.encoder}}, "`sides`: 'a/b' cannot name"),
    "a side with the name of a value": (lambda m: {"sides": {"loss": m.encoder}}, "`sides`: side 'loss' has the name"),
    "a side with the name of an argument": (lambda m: {"sides": {"step": m.encoder}}, "`sides`: side 'step' has the"),
    "a side with a name that is taken": (lambda m: {"sides": {"a": m.encoder, "a_layer": m.heads}}, "`sides`: the"),
    "a tensor in config": (lambda m: {"config": {"lr": torch.tensor(1.0)}}, "`config=.*JSON cannot hold it"),
    "NaN in config": (lambda m: {"config": {"lr": float("nan")}}, "`config=.*JSON cannot hold it"),
    "a list as config": (lambda m: {"config": [1]}, "`config=.*must be a dict"),
    "no function": (lambda m: {"on_record": 3}, "`on_record=3`"),
    "no scaler": (lambda m: {"scaler": True}, "`scaler=True`"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option_is_one_line_before_the_training(case: str, tmp_path: Path) -> None:
    model, _ = build("mlp")
    options, message = OPTIONS[case]
    with pytest.raises(toppo.UsageError, match=message) as caught:
        record(tmp_path / "dump", model, **{"tasks": TASKS, **options(model)})
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_model_without_values_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(toppo.UsageError, match=r"meta device.*to_empty") as caught:
        record(tmp_path / "dump", model, tasks=TASKS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["file/dump", "file/a/b", ""])
def test_a_path_where_no_dump_can_be_made_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(toppo.UsageError, match="`path=") as caught:
        record(path and str(tmp_path / path), build("mlp")[0], tasks=TASKS)
    assert "\n" not in str(caught.value)
    with pytest.raises(toppo.UsageError, match="`path=None`"):
        record(None, build("mlp")[0], tasks=TASKS)  # type: ignore[arg-type]


def test_a_write_protected_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs this may be allowed everything
    with pytest.raises(toppo.UsageError, match="is write-protected; take another path"):
        record(tmp_path / "runs" / "dump", build("mlp")[0], tasks=TASKS)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_store_cannot_be_resumed(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "dump"
    if kind == "file":
        place.touch()
    elif kind == "link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.mkdir()
        (place / "mine").touch()
    with pytest.raises(toppo.DumpError, match="already there"):
        record(place, build("mlp")[0], tasks=TASKS)
    with pytest.raises(toppo.DumpError, match="no store of a dump"):
        record(place, build("mlp")[0], tasks=TASKS, exist="resume")


def test_the_dump_says_how_it_was_recorded(tmp_path: Path) -> None:
    model, x = build("mlp")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for name, options in (("plain", {}), ("other", {"every": 3, "accumulate": 2, "scaler": scaler})):
        config = {"lr": 0.1}
        with record(tmp_path / name, model, tasks=TASKS, config=config, **options) as recorder:
            config["lr"] = np.inf  # the recorder has a copy
            for _ in range(2):
                recorder.backward(all_samples(model(x)))
    told = [toppo.open_dump(tmp_path / name).attrs["capture"] for name in ("plain", "other")]
    assert [(one["every"], one["accumulate"], one["scaler"]) for one in told] == [(100, 1, False), (3, 2, True)]
    assert toppo.open_dump(tmp_path / "other").attrs["config"] == {"lr": 0.1}


def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path: Path) -> None:
    model, x = build("mlp")
    whole = {"every": np.int64(2), "accumulate": np.int64(1), "seed": np.int64(3)}
    with record(tmp_path / "dump", model, tasks=TASKS, **whole) as recorder:  # type: ignore[arg-type]
        for _ in range(3):
            recorder.backward(all_samples(model(x)))
    dump = toppo.open_dump(tmp_path / "dump")
    assert (dump.steps.tolist(), dump.attrs["capture"]["every"]) == ([0, 2], 2)
