"""From dump to Grams: choice, layers, and every scheduler alike."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.diag import runs
from toppo.common.errors import ToppoError
from toppo.dump import DumpError, DumpWriter, ParameterSlice, gram, open_dump
from toppo_diag.errors import DiagnosticError, UsageError
from toppo_diag.reading.conditions import name_of
from toppo_diag.reading.dumps import dropped_note, layer_grams, read_grams, read_stream
from toppo_diag.reading.raw import raw_stream
from toppo_diag.reading.schedulers import map_on
from toppo_diag.request import Request


def plain_gram(J: np.ndarray) -> np.ndarray:
    """The inner products, written out."""
    rows = [[float(x) for x in row] for row in J]
    return np.array([[sum(a * b for a, b in zip(u, v, strict=True)) for v in rows] for u in rows])


def test_all_of_a_side(run: str):
    grams = read_grams(open_dump(run), "critic", Request((run,)))
    assert grams.values.shape == (10, 4, 4)
    assert grams.tasks == runs.TASKS
    np.testing.assert_allclose(grams.values[3], plain_gram(runs.gradients("critic", 1, 1)), rtol=1e-12)
    assert grams.where(3) == {"env_steps": 1_000_000, "snapshot": 1, "minibatch": 1}
    np.testing.assert_array_equal(grams.beside["popart_sigma"][3], runs.sigma(1, 4))


def test_some_snapshots_and_tasks(run: str):
    tasks = ("drawer-close-v3", "reach-v3")
    grams = read_grams(open_dump(run), "critic", Request((run,), snapshot=("-1",), tasks=tasks))
    J = runs.gradients("critic", 4, 0)[[3, 0]]
    np.testing.assert_allclose(grams.values[0], plain_gram(J), rtol=1e-12)
    np.testing.assert_array_equal(grams.beside["popart_sigma"][0], runs.sigma(4, 4)[[3, 0]])
    assert grams.stages == {4: "snapshot 4"}


@pytest.mark.parametrize(("layer", "columns"), [("trunk.0.bias", slice(48, 54)), ("trunk.0", slice(0, 54))])
def test_one_layer(run: str, layer: str, columns: slice):
    grams = read_grams(open_dump(run), "critic", Request((run,), layer=layer, stage=("mid",)))
    J = runs.gradients("critic", 2, 1)[:, columns]
    np.testing.assert_allclose(grams.values[1], plain_gram(J), rtol=1e-12)


def test_the_stream_is_read_unless_snapshots_are_chosen(run: str):
    dump = open_dump(run)
    stream = read_stream(dump, "actor", Request((run,)))
    assert len(stream.values) == runs.SNAPSHOTS * runs.ENTRIES
    np.testing.assert_allclose(stream.values[4], plain_gram(runs.gradients("actor", 1, 1)), rtol=1e-12)
    assert len(read_stream(dump, "actor", Request((run,), stage=("early",))).values) == runs.MINIBATCHES


def test_one_minibatch_of_each_snapshot(run: str):
    dump = open_dump(run)
    for minibatch in (1, -1):
        grams = read_grams(dump, "critic", Request((run,), minibatch=minibatch))
        assert grams.minibatch.tolist() == [runs.MINIBATCHES - 1] * runs.SNAPSHOTS
        np.testing.assert_array_equal(grams.values, dump.values("critic_gram")[:, runs.MINIBATCHES - 1])
    assert read_stream(dump, "critic", Request((run,), minibatch=0)).minibatch.tolist() == [0] * runs.SNAPSHOTS
    with pytest.raises(UsageError, match=r"`minibatch=2`: a snapshot of .* holds 2 minibatches, counted from 0"):
        read_grams(dump, "critic", Request((run,), minibatch=2))


def test_the_raw_stream_takes_sigma_from_the_log(tmp_path: Path):
    path = runs.record(tmp_path / "run")
    dump = open_dump(path)
    recorded = read_stream(dump, "critic", Request((str(path),)))
    grams, notes = raw_stream(dump, "critic", Request((str(path),)))  # no log: the snapshots have their own sigma
    assert len(grams.values) == runs.SNAPSHOTS * runs.MINIBATCHES
    assert "no log of PopArt's sigma for every collect" in notes[0]

    def line(snapshot: int) -> str:
        sigma = runs.sigma(snapshot, len(runs.TASKS))
        tasks = {task: {"popart_sigma": s} for task, s in zip(runs.TASKS, sigma, strict=True)}
        return json.dumps({"collect": snapshot + 1, "env_steps": 500_000 * (snapshot + 1), "tasks": tasks}) + "\n"

    (path / "progress.jsonl").write_text("".join(map(line, range(runs.SNAPSHOTS))))
    grams, notes = raw_stream(dump, "critic", Request((str(path),), tasks=runs.TASKS[1:]))
    assert not notes and len(grams.values) == runs.SNAPSHOTS * runs.ENTRIES
    for n, G in enumerate(grams.values):
        factor = runs.sigma(n // runs.ENTRIES, len(runs.TASKS))[1:] ** 2
        np.testing.assert_allclose(G, recorded.values[n][1:, 1:] * np.outer(factor, factor), rtol=1e-12)


def test_the_other_tasks_of_a_minibatch_that_is_not_finite_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clean = runs.gradients

    def spoiled(side: str, snapshot: int, minibatch: int, *rest: object) -> np.ndarray:
        J = clean(side, snapshot, minibatch, *rest)  # type: ignore[arg-type]
        if (snapshot, minibatch) == (0, 1):
            J[0, 0] = np.nan
        return J

    with monkeypatch.context() as patch:
        patch.setattr(runs, "gradients", spoiled)
        path = runs.record(tmp_path / "nan", snapshots=1, stream=False, bare=True)
    grams = read_grams(open_dump(path), "critic", Request((str(path),)))
    assert grams.known is not None
    assert grams.known.tolist() == [[True] * 4, [False, True, True, True]]
    J = clean("critic", 0, 1)
    np.testing.assert_allclose(grams.values[1, 1:, 1:], gram(J[1:]), rtol=1e-12)
    assert not grams.values[1, 0].any() and not grams.values[1, :, 0].any()
    assert len(grams.some_known().values) == 2
    (note,) = dropped_note(open_dump(path), "critic", grams)
    assert note.endswith("not finite: the critic gradient of reach-v3, in 1 of 2 minibatches; these are gaps")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("reech",)}, "has no task 'reech'"),
        ({"layer": "trunk.1"}, "has no such layer; it has trunk.0.weight"),
        ({"stage": ("erly",)}, "unknown stage 'erly'"),
        ({"snapshot": ("9",)}, "has no snapshot 9"),
    ],
)
def test_what_is_not_there_is_named(run: str, options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        read_grams(open_dump(run), "critic", Request((run,), **options))


def test_a_layer_of_the_other_side_is_found_there(tmp_path: Path):
    path = str(tmp_path / "two.zarr")
    sides = {"neck": [ParameterSlice("in.weight", (4,))], "trunk": [ParameterSlice("out.weight", (4,))]}
    with DumpWriter.create(path, tasks=["a", "b"], sides=sides) as dump:
        dump.record(step=0, neck=np.eye(2, 4), trunk=np.eye(2, 4))
    with pytest.raises(UsageError, match=r"side .neck. of .* has no such layer; `side=trunk` has it"):
        read_grams(open_dump(path), "neck", Request((path,), layer="out"))


def test_two_ways_of_choosing_snapshots_at_once():
    with pytest.raises(UsageError, match="`stage` and `steps` both choose"):
        Request.of("x", stage="early", steps=1)


def test_an_archive_shows_the_layers_of_its_dump(run: str, archive: Path):
    found, expected = (
        read_grams(open_dump(path), "critic", Request((str(path),), layer="trunk.0")) for path in (archive, run)
    )
    np.testing.assert_array_equal(found.values, expected.values)
    request = Request((str(archive),), layer="trunk.0", snapshot=("3", "1"))
    chosen = read_grams(open_dump(archive), "critic", request)
    np.testing.assert_array_equal(chosen.values, expected.values[[6, 7, 2, 3]])


def test_a_dump_without_layers_says_so(tmp_path: Path):
    path = runs.record(tmp_path / "run", slabs=False, snapshots=1)
    with pytest.raises(DumpError, match="needs Grams by layer, but the dump holds whole Grams alone; record the run"):
        read_grams(open_dump(path), "critic", Request((str(path),), layer="out"))


# --- schedulers


def on(scheduler: str, path: str) -> np.ndarray:
    dump = open_dump(path)
    index = [(s, m) for s in range(runs.SNAPSHOTS) for m in range(runs.MINIBATCHES)]
    return layer_grams(dump, "critic", index, scheduler)


@pytest.mark.parametrize("scheduler", ["threads", "threads:3", "processes:2"])
def test_schedulers_agree_to_the_bit(run: str, scheduler: str):
    np.testing.assert_array_equal(on(scheduler, run), on("serial", run))


def test_layers_sum_to_the_whole(run: str):
    grams = on("serial", run)
    whole = open_dump(run).values("critic_gram").reshape(-1, *grams.shape[2:])
    np.testing.assert_allclose(grams.sum(axis=1), whole, rtol=1e-12)


@pytest.fixture(scope="module")
def cluster():
    """A dask scheduler over tcp with one worker process under a nanny."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, protocol="tcp", dashboard_address=None, processes=True
    ) as cluster:
        yield cluster


def test_dask_over_tcp_agrees_to_the_bit(run: str, cluster, tmp_path: Path):
    assert cluster.scheduler_address.startswith("tcp://")
    np.testing.assert_array_equal(on(cluster.scheduler_address, run), on("serial", run))
    address_file = tmp_path / "cluster.json"
    cluster.scheduler_file = str(address_file)
    address_file.write_text(f'{{"address": "{cluster.scheduler_address}", "type": "Scheduler", "id": "x"}}')
    np.testing.assert_array_equal(on(str(address_file), run), on("serial", run))


def die_once(mark: str, n: int) -> int:
    """The square of n; the first process to come to 3 is killed outright."""
    if n == 3 and not Path(mark).exists():
        Path(mark).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


def test_a_killed_worker_loses_nothing(tmp_path: Path):
    mark = tmp_path / "died"
    assert map_on("processes:2", die_once, [(str(mark), n) for n in range(8)]) == [n * n for n in range(8)]
    assert mark.exists()


def test_a_killed_dask_worker_loses_nothing(tmp_path: Path, cluster):
    mark = tmp_path / "died"
    found = map_on(cluster.scheduler_address, die_once, [(str(mark), n) for n in range(8)])
    assert found == [n * n for n in range(8)]
    assert mark.exists()


def fail(n: int) -> int:
    raise DumpError(f"number {n} is damaged")


@pytest.mark.parametrize("scheduler", ["serial", "threads:2", "processes:2", "dask"])
def test_an_error_of_a_worker_is_the_error(request: pytest.FixtureRequest, scheduler: str):
    where = request.getfixturevalue("cluster").scheduler_address if scheduler == "dask" else scheduler
    with pytest.raises(DumpError, match="number 1 is damaged"):
        map_on(where, fail, [(1,)] * 3)


def test_a_cluster_without_workers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("toppo_diag.reading.schedulers.PATIENCE", 1)
    with (
        distributed.LocalCluster(n_workers=0, protocol="tcp", dashboard_address=None) as empty,
        pytest.raises(DiagnosticError, match="nothing was done for 1 s, and it has no workers; start some"),
    ):
        map_on(empty.scheduler_address, abs, [(-1,)])


def die(n: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_workers_that_keep_dying_end_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toppo_diag.reading.schedulers.ATTEMPTS", 1)
    with pytest.raises(DiagnosticError, match="its workers died 1 times"):
        map_on("processes:1", die, [(1,)])


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("thread", "give serial, threads:N"),
        ("threads:0", "1 or more"),
        ("processes:x", "1 or more"),
        ("none.json", "no such scheduler file"),
    ],
)
def test_no_such_scheduler(scheduler: str, message: str):
    with pytest.raises(ToppoError, match=message):
        map_on(scheduler, abs, [(1,)])


def test_a_run_has_one_name_from_wherever_it_is_named(tmp_path, monkeypatch):
    place = tmp_path / "run7"
    place.mkdir()
    monkeypatch.chdir(place)
    spellings = (".", "dump.zarr", "./dump.zarr", "../run7", "../run7/", str(place), f"file://{place}", "s3://b/run7")
    assert {name_of(path) for path in spellings} == {"run7"}
    assert {name_of(path) for path in ("../run8.h5", "s3://b/run8.h5", "s3://b/run8/dump.zarr")} == {"run8"}
