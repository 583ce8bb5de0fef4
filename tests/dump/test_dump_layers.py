"""Grams by layer, tasks that were absent, and the words of a run's own step axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from toppo.dump import (
    ENV_STEPS,
    DumpError,
    DumpWriter,
    ParameterSlice,
    StepAxis,
    describe,
    export,
    gram,
    open_dump,
    verify,
)

TASKS = ["a", "b", "c"]
LAYERS = [ParameterSlice("0.weight", (5, 4)), ParameterSlice("0.bias", (4,)), ParameterSlice("norm", (3,))]
P = 27
CUTS = [slice(0, 20), slice(20, 24), slice(24, 27)]


def slab(step: int) -> np.ndarray:
    return np.random.default_rng(step).standard_normal((3, P)).astype(np.float32)


def by_layer(J: np.ndarray) -> np.ndarray:
    """G of each layer from its definition, in fp64."""
    with np.errstate(invalid="ignore"):
        return np.stack([J[:, cut].astype(float) @ J[:, cut].astype(float).T for cut in CUTS])


def create(path: Path, **changes: Any) -> DumpWriter:
    arguments: dict[str, Any] = {"tasks": TASKS, "sides": {"trunk": LAYERS}, "layer_grams": True, "absences": True}
    return DumpWriter.create(path, **arguments | changes)


@pytest.mark.parametrize("slabs", [True, False])
@pytest.mark.parametrize("given", ["slab", "slab and gram", "layers", "layers and gram"])
def test_layers_sum_to_the_whole_however_they_came(store: Path, tmp_path: Path, slabs: bool, given: str) -> None:
    with create(store, slabs=slabs) as writer:
        for step in range(4):
            J = slab(step)
            values: dict[str, Any] = {"trunk": J} if "slab" in given or slabs else {}
            values |= {"trunk_gram": gram(J)} if "gram" in given else {}
            values |= {"trunk_layer_gram": by_layer(J)} if "layers" in given else {}
            writer.record(step=step, **values)
    assert verify(store).ok
    for path in (store, export(store, tmp_path / "a.h5"), export(store, tmp_path / "b.h5", slabs=slabs)):
        dump = open_dump(path)
        assert dump.layer_names("trunk") == [layer.name for layer in LAYERS]
        assert dump.has_layers("trunk")
        G = dump.layer_grams("trunk")
        assert G.dims == ("snapshot", "minibatch", "trunk_layer", "task", "task_j")
        assert G.coords["trunk_layer"].values.tolist() == dump.layer_names("trunk")
        assert G.coords["step"].values.tolist() == [0, 1, 2, 3]
        for step in range(4):
            np.testing.assert_allclose(G[step, 0], by_layer(slab(step)), rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(
                G[step, 0].sum("trunk_layer"), dump.gram("trunk")[step, 0], rtol=1e-12, atol=1e-12
            )
            xr.testing.assert_equal(
                dump.layer_gram("trunk", "0.bias", step, 0).drop_vars("parameter"),
                G[step, 0].sel(trunk_layer="0.bias").drop_vars("trunk_layer").assign_coords(minibatch=0),
            )
        assert verify(path).ok


def test_other_tools_read_the_names_of_layers(store: Path) -> None:
    with create(store) as writer:
        writer.record(step=5, trunk=slab(0))
    dataset = xr.open_zarr(store, consolidated=False)
    assert dataset["trunk_layer_gram"].sel(trunk_layer="norm").shape == (1, 1, 3, 3)
    assert dataset["trunk_layer_gram"].coords["step"].values.tolist() == [5]
    assert "collect" not in zarr.open_group(store, mode="r")


def test_what_a_dump_of_layers_needs(store: Path) -> None:
    writer = create(store, slabs=False)
    for values, message in (
        ({"trunk_gram": np.eye(3)}, "side 'trunk' came without its slab; give it, or its `layer_grams`"),
        (
            {"trunk_layer_gram": np.ones((2, 3, 3))},
            r"trunk layer Grams is float64 \(2, 3, 3\), expected .*\(3, 3, 3\)",
        ),
        ({}, "side 'trunk' came without its slab"),
    ):
        with pytest.raises(DumpError, match=message):
            writer.record(step=0, **values)
    writer.abandon()
    whole = DumpWriter.create(store.with_name("whole.zarr"), tasks=TASKS, sides={"trunk": P})
    with pytest.raises(DumpError, match="or create the dump with `slabs=False` to record Grams alone"):
        whole.record(step=0, trunk_gram=np.eye(3))
    whole.abandon()


def test_grams_alone(store: Path) -> None:
    with DumpWriter.create(store, tasks=TASKS, sides={"shared": 1000}, slabs=False) as writer:
        for step in range(3):
            writer.record(step=step, shared_gram=(step + 1) * np.eye(3), loss=[1.0, 2.0, 3.0])
    dump = open_dump(store)
    np.testing.assert_array_equal(dump.gram("shared")[2, 0], 3 * np.eye(3))
    assert not dump.has_layers("shared")
    with pytest.raises(DumpError, match="this needs Grams by layer, but the dump holds whole Grams alone"):
        dump.layer_grams("shared")
    assert verify(store).ok


ABSENT = [[True, True, True], [True, False, True], [False, False, False], [True, True, False]]


@pytest.mark.parametrize("slabs", [True, False])
@pytest.mark.parametrize("keepbits", [None, 8])
@pytest.mark.parametrize("given", ["slab", "grams"])
def test_absent_is_a_state(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, slabs: bool, keepbits: int | None, given: str
) -> None:
    """Whatever is given for an absent task, no number of it is kept. The others are untouched."""
    with create(store, slabs=slabs, keepbits=keepbits) as writer:
        for step, present in enumerate(ABSENT):
            J = slab(step)
            J[~np.array(present)] = (0, np.nan, 7, np.inf)[step]
            grams = {} if given == "slab" else {"trunk_gram": gram(J), "trunk_layer_gram": by_layer(J)}
            writer.record(step=step, trunk=J, present=present, **grams)
    assert "not finite" not in caplog.text
    for path in (store, export(store, tmp_path / "a.h5"), export(store, tmp_path / "b.h5", slabs=slabs)):
        dump = open_dump(path)
        np.testing.assert_array_equal(dump.present[:, 0], ABSENT)
        np.testing.assert_array_equal(dump.values("trunk_finite")[:, 0], np.where(ABSENT, 1, -1))
        for step, present in enumerate(ABSENT):
            both = np.outer(present, present)
            G = np.where(both, gram(slab(step)), np.nan)
            np.testing.assert_allclose(dump.gram("trunk")[step, 0], G, rtol=1e-12, atol=1e-12)
            layers = np.where(both, by_layer(slab(step)), np.nan)
            tolerance = 1e-12 if keepbits is None or dump.source.header.layout.layer_grams else 2.0**-7
            np.testing.assert_allclose(dump.layer_grams("trunk")[step, 0], layers, rtol=tolerance, atol=tolerance)
            if dump.has_slabs:
                np.testing.assert_array_equal(
                    np.isnan(dump.slab_values("trunk", step, 0)).all(axis=1), ~np.array(present)
                )
        assert describe(dump)["absent"] == {"a": 1, "b": 2, "c": 2}
        assert describe(dump)["not_finite"] == {"trunk": 0}
        report = verify(path)
        assert report.ok, report.lines()


def test_absent_and_not_finite_are_told_apart(store: Path) -> None:
    J = slab(0)
    J[0, 3] = np.nan
    with create(store) as writer:
        writer.record(step=0, trunk=J, present=[True, False, True])
    assert open_dump(store).values("trunk_finite").tolist() == [[[0, -1, 1]]]
    report = verify(store)
    assert report.ok
    assert "trunk gradient of a: not finite in snapshot 0, minibatch 0, as recorded" in report.notes


def test_absence_is_asked_for(store: Path) -> None:
    writer = create(store, absences=False)
    with pytest.raises(DumpError, match="a task is absent, and the dump was created without `absences`"):
        writer.record(step=0, trunk=slab(0), present=[True, False, True])
    with pytest.raises(DumpError, match=r"present is float64 \(3,\), expected int8 \(3,\)"):
        writer.record(step=0, trunk=slab(0), present=[1.0, 0.5, 1.0])
    writer.record(step=0, trunk=slab(0), present=np.ones(3, bool))
    writer.close()
    assert open_dump(store).present.all()


def rewritten(path: Path, name: str, at: tuple[int, ...], value: float) -> None:
    """Put another number into a store, with all checksums made to match."""
    from tests.dump.test_dump_verify import rewrite

    values = zarr.open_array(path / name, mode="r")[at[:1]]
    values[at[1:]] = value
    key = ".".join(["c", str(at[0]), *"0" * (values.ndim)])
    rewrite(path, name, key, values)


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        (
            "trunk_layer_gram",
            (1, 0, 1, 0, 2),
            9.0,
            "snapshot 1, minibatch 0: sum to a Gram that differs",
        ),
        ("trunk_layer_gram", (1, 0, 1, 0, 2), 9.0, "of 0.bias differs from the Gram of the slab"),
        ("trunk_layer_gram", (1, 0, 2, 2, 2), -1.0, "task c: squared norm is -1.0, though"),
        ("trunk_layer_gram", (1, 0, 2, 1, 1), 3.0, "task b: holds a number, though the task was absent"),
        ("trunk_gram", (1, 0, 1, 1), 3.0, "trunk_gram, snapshot 1, minibatch 0, task b: holds a number, though"),
        ("trunk_finite", (1, 0, 1), 1, "task b: flag is 1, though the task was absent"),
        ("present", (1, 0, 1), 1, "task b: flag is -1"),
        ("present", (1, 0, 0), 0, "task a: flag is 1, though the task was absent"),
    ],
)
def test_what_contradicts_itself_is_damage(store: Path, name: str, at: tuple, value: float, message: str) -> None:
    with create(store) as writer:
        for step in range(3):
            writer.record(step=step, trunk=slab(step), present=[True, step != 1, True])
    rewritten(store, name, at, value)
    assert message in "\n".join(map(str, verify(store).damages))


def test_a_run_has_its_own_word_for_steps(store: Path, tmp_path: Path) -> None:
    axis = StepAxis("epoch", "training epochs")
    assert (axis.units, ENV_STEPS.units, StepAxis().units) == ("epochs", "steps", "steps")
    with create(store, step=axis, stream=(None, 1)) as writer:
        for step in (3, 8):
            writer.record_stream(step // 5, grams={"trunk": np.eye(3)[None]}, step=step)
            writer.record(step=step, trunk=slab(step))
    for path in (store, export(store, tmp_path / "a.h5")):
        dump = open_dump(path)
        assert (dump.step, dump.steps.tolist()) == (axis, [3, 8])
        assert not {"env_steps", "collect", "step"} & set(dump.names)
        assert dump.gram_stream("trunk").coords["stream_epoch"].values.tolist() == [3, 8]
        assert dump["epoch"].attrs["units"] == "epochs"
        assert dump.layer_gram("trunk", "norm", 1, 0).coords["epoch"] == 8
        facts = describe(dump)
        assert (facts["step"], facts["steps"]) == ({"name": "epoch", "label": "training epochs"}, [3, 8])
        assert verify(path).ok


@pytest.mark.parametrize("name", ["task", "trunk_gram", "my step", "minibatch", ""])
def test_a_name_for_steps_that_is_taken(store: Path, name: str) -> None:
    with pytest.raises(DumpError, match=r"is taken by the dump's own layout|cannot name a side, scalar or step axis"):
        create(store, step=StepAxis(name, "steps"))
    assert not store.exists()
