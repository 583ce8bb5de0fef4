"""Two processes under DistributedDataParallel against one process on the joined batch."""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch import multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import toppo
from tests.capture.networks import TASKS, all_samples, build
from toppo.capture.ranks import Ranks
from toppo.capture.recorder import record

WORLD = 2


@contextlib.contextmanager
def _group(rank: int, port: int) -> Iterator[None]:
    """One of the processes. gloo's threads abort a process at times if the first one, which they talk to, ends before.

    So the first waits for the others, and all end without taking gloo down.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    yield
    distributed.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    if rank == 0:
        time.sleep(0.5)
    os._exit(0)


def _train(model: nn.Module, x: Tensor, path: Path, combiner: str | None) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(path, model, tasks=TASKS, every=2, combiner=combiner, slabs=True) as recorder:
        for _ in range(4):
            optimizer.zero_grad()
            recorder.backward(all_samples(model(x)))
            optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def _rank(rank: int, port: int, path: str, combiner: str | None) -> None:
    with _group(rank, port):
        model, x = build("mlp")
        parameters = _train(DistributedDataParallel(model), x.chunk(WORLD)[rank], Path(path) / "ranks", combiner)
        if rank == 1:
            torch.save(parameters, Path(path) / "parameters.pt")


def _sharded(rank: int, port: int, path: str) -> None:
    with _group(rank, port):
        models = [FullyShardedDataParallel(build("mlp")[0], device_id=torch.device("cpu"))]
        models.append(fully_shard(build("mlp")[0], mesh=init_device_mesh("cpu", (WORLD,))))
        for model in models:
            with pytest.raises(toppo.UsageError, match="record a run under DistributedDataParallel"):
                record(Path(path) / "dump", model, tasks=TASKS)


def _taken(rank: int, port: int, path: str) -> None:
    with _group(rank, port), pytest.raises(toppo.DumpError, match="already there"):
        record(path, DistributedDataParallel(build("mlp")[0]), tasks=TASKS)


class OwnError(Exception):
    """An error that the other processes cannot be sent."""

    def __reduce__(self) -> str:
        raise TypeError("of this process alone")


def _fail() -> None:
    raise OwnError("of this process alone")


def _resumed(rank: int, port: int, path: str) -> None:
    """The first rank finds a dump of other tasks, at the first recorded step. The second must not wait for it."""
    with _group(rank, port):
        model, x = build("mlp")
        recorder = record(path, DistributedDataParallel(model), tasks=TASKS[::-1], way="walks", exist="resume")
        with pytest.raises(toppo.UsageError, match="holds other tasks"):
            recorder.backward(all_samples(model(x)), step=100)
        with pytest.raises(OwnError if rank == 0 else toppo.ToppoError, match="of this process alone"):
            Ranks(DistributedDataParallel(model)).agree(_fail)


def _wrong(rank: int, port: int, path: str) -> None:
    """A number of the wrong shape in both ranks, and then an error of the first rank's `on_record`."""

    def fail(step: int, numbers: object) -> None:
        raise OwnError("of this process alone")

    with _group(rank, port):
        model, x = build("mlp")
        wrapped = DistributedDataParallel(model)
        recorder = record(Path(path) / "shape", wrapped, tasks=TASKS, every=1)
        with pytest.raises(toppo.ToppoError, match="accuracy"):
            recorder.backward(all_samples(wrapped(x)), accuracy=np.zeros(7))
        recorder = record(Path(path) / "display", wrapped, tasks=TASKS, every=1, on_record=fail)
        with pytest.raises(OwnError if rank == 0 else toppo.ToppoError, match="of this process alone"):
            recorder.backward(all_samples(wrapped(x)))


def _local(rank: int, port: int, path: str) -> None:
    with _group(rank, port):
        model, x = build("mlp")
        with record(Path(path) / f"rank{rank}", model, tasks=TASKS) as recorder:
            recorder.backward(all_samples(model(x)))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.mark.parametrize("combiner", [None, "fairgrad"])
def test_two_ranks_record_what_one_process_records(combiner: str | None, tmp_path: Path) -> None:
    mp.spawn(_rank, (_free_port(), str(tmp_path), combiner), nprocs=WORLD)
    model, x = build("mlp")
    alone = _train(copy.deepcopy(model), x, tmp_path / "alone", combiner)
    one, two = toppo.open_dump(tmp_path / "alone"), toppo.open_dump(tmp_path / "ranks")
    assert one.steps.tolist() == two.steps.tolist() == [0, 2]
    assert two.layer_names("shared") == one.layer_names("shared")
    # Means of halves differ from the mean of the whole by fp32 rounding, and a few steps let it grow.
    for name in ("shared_layer_gram", "loss", "shared_grad"):
        a, b = one.values(name), two.values(name)
        assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max(), name
    for p, q in zip(alone, torch.load(tmp_path / "parameters.pt"), strict=True):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-5)


def test_every_rank_learns_that_the_path_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mp.spawn(_taken, (_free_port(), str(tmp_path)), nprocs=WORLD)


def test_every_rank_learns_that_the_dump_is_another_one(tmp_path: Path) -> None:
    model, x = build("mlp")
    with record(tmp_path / "dump", model, tasks=TASKS) as recorder:
        recorder.backward(all_samples(model(x)))
    mp.spawn(_resumed, (_free_port(), str(tmp_path / "dump")), nprocs=WORLD)


def test_every_rank_learns_of_an_error_of_the_first(tmp_path: Path) -> None:
    mp.spawn(_wrong, (_free_port(), str(tmp_path)), nprocs=WORLD)


def test_sharded_models_are_refused(tmp_path: Path) -> None:
    mp.spawn(_sharded, (_free_port(), str(tmp_path)), nprocs=WORLD)


def test_a_rank_that_records_its_own_gradient_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mp.spawn(_local, (_free_port(), str(tmp_path)), nprocs=WORLD)
    assert "the recorded gradients are this rank's own" in capfd.readouterr().err
