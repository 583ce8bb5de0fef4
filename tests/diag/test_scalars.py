"""`toppo-diag scalars`: the long table against the Grams, and each sink read back by the library that it writes for."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import toppo_diag
from tests.diag import runs
from tests.diag.test_cli import diag  # noqa: F401 (a fixture)
from toppo.combiners.geometry import direction_shares, gradient_norms, spread
from toppo.combiners.scalars import tag
from toppo.dump import DumpWriter, StepAxis, gram, open_dump
from toppo_diag import sinks

Curves = dict[str, dict[int, float]]
"""Tag -> step -> value."""


def curves(rows: list[dict[str, Any]]) -> Curves:
    found: Curves = {}
    for row in rows:
        found.setdefault(tag(row["side"], row["name"], row["task"]), {})[int(row["step"])] = float(row["value"])
    return found


@pytest.fixture(scope="module")
def expected(run: str) -> Curves:
    return curves(toppo_diag.scalars(run).tables["main"].to_dict("records"))


def test_each_number_is_the_median_over_the_minibatches_of_its_snapshot(run, expected):
    weights = open_dump(run)["critic_weights"].values * runs.VALUE_COEF
    for s in range(runs.SNAPSHOTS):
        step = 500_000 * (s + 1)
        grams = np.stack([gram(runs.gradients("critic", s, m)) for m in range(runs.MINIBATCHES)])
        assert expected["critic/spread"][step] == pytest.approx(np.median(spread(gradient_norms(grams))))
        norms, shares = np.median(gradient_norms(grams), 0), np.median(direction_shares(grams, weights[s]), 0)
        for k, task in enumerate(runs.TASKS):
            assert expected[f"critic/norm/{task}"][step] == pytest.approx(norms[k])
            assert expected[f"critic/share/{task}"][step] == pytest.approx(shares[k])
    assert len(expected) == 2 * (6 + 2 * len(runs.TASKS)) - 1
    assert "actor/starved_tasks" not in expected  # the weights of the actor were not recorded


def test_the_csv_file_has_the_same_numbers_and_an_axis(diag, run, expected):  # noqa: F811
    code, out, err = diag("scalars", run, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["files"] == ["figures/out/scalars-fg.csv"]
    with Path(answer["files"][0]).open() as file:
        assert curves(list(csv.DictReader(file))) == expected
    assert [row["side"] for row in answer["numbers"]] == ["actor", "critic"]
    assert [note for note in answer["notes"] if "actor_weights" in note]


def test_a_task_that_was_absent_has_no_row(run):
    from toppo_diag.analysis.scalars import scalar_series

    grams = np.stack([np.eye(3), np.diag([1.0, 4.0, np.nan]), np.diag([1.0, 9.0, 9.0])])
    rows = scalar_series(np.array([1, 2, 2]), grams, None).rows("s", "abc")
    found = curves(rows)
    assert found["s/norm/c"] == {1: 1, 2: 3}  # the median is over the minibatches that it was in
    assert found["s/norm/b"] == {1: 1, 2: 2.5}
    absent = curves(scalar_series(np.array([1, 2]), grams[:2], None).rows("s", "abc"))
    assert absent["s/norm/c"] == {1: 1}
    assert absent["s/spread"] == {1: 1, 2: 2}


def test_a_run_with_absences_and_an_axis_of_its_own(tmp_path):
    J = np.random.default_rng(0).standard_normal((4, 3, 8)).astype(np.float32)
    options = {"tasks": list("abc"), "sides": {"encoder": 8}, "slabs": False, "absences": True}
    with DumpWriter.create(tmp_path / "d", step=StepAxis("epoch", "epochs"), **options) as dump:
        for step in range(4):
            dump.record(step=step, encoder=J[step], present=[True, True, step != 2])
    product = toppo_diag.scalars(tmp_path / "d", to="parquet" if find_spec("pyarrow") else None)
    found = curves(product.tables["main"].to_dict("records"))
    assert list(found["encoder/norm/c"]) == [0, 1, 3]
    assert found["encoder/norm/c"][1] == pytest.approx(np.linalg.norm(J[1, 2]))
    assert found["encoder/spread"][2] == pytest.approx(spread(gradient_norms(gram(J[2, :2]))))
    assert found["encoder/share/a"][2] + found["encoder/share/b"][2] == pytest.approx(1)
    if find_spec("pyarrow"):
        assert "epoch" in pd.read_parquet(product.save(tmp_path)[-1])


def test_tensorboard_reads_its_events(diag, run, expected):  # noqa: F811
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second export replaces the first
        code, out, err = diag("scalars", run, "--to", "tensorboard", "--out", "tb", "--json")
        assert (code, err) == (0, "")
    assert len(list(Path("tb/scalars-fg").iterdir())) == 1
    assert json.loads(out)["files"][-1].startswith("tb/scalars-fg/events.out.tfevents")
    events = EventAccumulator("tb/scalars-fg", size_guidance={"scalars": 0})
    events.Reload()
    read = {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}
    assert read.keys() == expected.keys()
    for name, curve in expected.items():
        assert read[name] == pytest.approx(curve, rel=1e-6), name  # TensorBoard keeps float32


def test_parquet_is_read_by_pyarrow(run, expected, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    from pyarrow import parquet

    made = toppo_diag.scalars(run, to="parquet").save(tmp_path)
    assert [path.name for path in made] == ["scalars-fg.csv", "scalars-fg.parquet"]
    table = parquet.read_table(made[-1]).to_pylist()
    assert list(table[0]) == ["env_steps", "side", "name", "task", "value"]
    assert curves([row | {"step": row["env_steps"]} for row in table]) == expected


def test_wandb_logs_offline(run, expected, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs the extra `wandb`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    *_, where = toppo_diag.scalars(run, to="wandb").save(tmp_path)
    wandb.teardown()  # its own process ends, and with it the writing
    assert where.parent == tmp_path / "wandb"
    (file,) = where.glob("*.wandb")
    rows = list(wandb_history(file))
    assert [row["env_steps"] for row in rows] == [500_000 * (s + 1) for s in range(runs.SNAPSHOTS)]
    read = {name: {row["env_steps"]: row[name] for row in rows} for name in expected}
    assert read == expected


def wandb_history(file: Path) -> Iterator[dict[str, Any]]:
    """The logged rows of an offline run. Its file is a LevelDB log: blocks of 32 KiB with pieces of records."""
    from wandb.proto import wandb_internal_pb2

    data, at, record = file.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:  # no header fits: the rest of the block is empty
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last
            parsed, record = wandb_internal_pb2.Record.FromString(record), b""
            if parsed.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in parsed.history.item}
                yield {key: json.loads(value) for key, value in items.items()}


@pytest.mark.parametrize("name", sinks.PACKAGES)
def test_a_missing_package_is_one_line_that_names_the_extra(diag, run, monkeypatch, name):  # noqa: F811
    monkeypatch.setattr(sinks, "find_spec", lambda package: None)
    code, _, err = diag("scalars", run, "--to", name)
    assert (code, err.count("\n")) == (1, 1)
    assert f"--to {name} needs {sinks.PACKAGES[name]}: pip install 'toppo[{name}]'" in err
    assert not Path("figures/out/scalars-fg.csv").exists()


def test_an_unknown_sink_is_refused(diag, run):  # noqa: F811
    code, _, err = diag("scalars", run, "--to", "csv,excel")
    assert (code, err.count("\n"), "excel: give some of csv, tensorboard, wandb, parquet" in err) == (2, 1, True), err


def test_each_sink_is_an_extra_of_its_name():
    import tomllib

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name, package in sinks.PACKAGES.items():
        assert extras["optional-dependencies"][name][0].startswith(f"{package}>=")
