"""`torchjd_hook` in TorchJD's own two training loops: autojac with an aggregator, autogram with a weighting."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from toppo.dump import DumpWriter, ParameterSlice, StepAxis, open_dump

torch = pytest.importorskip("torch")
torchjd_hook = pytest.importorskip("toppo.capture.adapters.torchjd").torchjd_hook
aggregation = pytest.importorskip("torchjd.aggregation", reason="needs the extra `torchjd`")
autojac = pytest.importorskip("torchjd.autojac")
Engine = pytest.importorskip("torchjd.autogram").Engine
nn = torch.nn

STEPS, EVERY, TASKS = 7, 3, ["a", "b", "c"]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def losses(network: nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return ((network(x) - torch.tensor([1.0, -1.0, 3.0])) ** 2).mean(0)


def jacobian(network: nn.Module, step: int) -> np.ndarray:
    rows = [torch.autograd.grad(loss, list(network.parameters()), retain_graph=True) for loss in losses(network, step)]
    return np.stack([torch.cat([g.flatten() for g in row]).numpy() for row in rows])


def dump_of(path: Path, network: nn.Module, **options: bool) -> DumpWriter:
    layout = [ParameterSlice(name, tuple(p.shape)) for name, p in network.named_parameters()]
    return DumpWriter.create(path, tasks=TASKS, sides={"shared": layout}, step=StepAxis(), **options)


def test_an_aggregator_that_weighs(network, tmp_path):
    optimizer, aggregator = torch.optim.SGD(network.parameters(), lr=0.05), aggregation.UPGrad()
    expected = {}
    with dump_of(tmp_path / "d", network) as dump:
        torchjd_hook(aggregator, dump, every=EVERY)
        for step in range(STEPS):
            expected[step] = jacobian(network, step)
            autojac.backward(list(losses(network, step)))
            weights = autojac.jac_to_grad(network.parameters(), aggregator)
            if step == 0:
                first = weights.numpy().copy()
            optimizer.step()
            optimizer.zero_grad()
    read = open_dump(tmp_path / "d")
    assert read.steps.tolist() == [0, 3, 6]
    for s, step in enumerate(read.steps):
        np.testing.assert_allclose(read["shared_grad"][s, 0], expected[step], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(read["shared_weights"][0, 0], first, rtol=1e-6)


def test_an_aggregator_without_weights_and_the_end_of_the_hook(network, tmp_path):
    aggregator = aggregation.ConFIG()
    with dump_of(tmp_path / "d", network) as dump:
        hook = torchjd_hook(aggregator, dump, every=1)
        for step in range(3):
            if step == 2:
                hook.remove()
            autojac.backward(list(losses(network, step)))
            autojac.jac_to_grad(network.parameters(), aggregator)
    read = open_dump(tmp_path / "d")
    assert read.steps.tolist() == [0, 1]
    np.testing.assert_allclose(read["shared_grad"][1, 0], jacobian(network, 1), rtol=1e-5, atol=1e-7)
    assert "shared_weights" not in read


@pytest.mark.parametrize("weighting", ["UPGradWeighting", "PCGradWeighting"])
def test_the_grams_of_autogram(network, tmp_path, weighting):
    weighting = getattr(aggregation, weighting)()
    plain = deepcopy(network)  # the hooks of autogram expect one backward pass after each forward pass
    optimizer, engine = torch.optim.SGD(network.parameters(), lr=0.05), Engine(network, batch_dim=None)
    expected = {}
    with dump_of(tmp_path / "d", network, slabs=False) as dump:
        torchjd_hook(weighting, dump, every=EVERY)
        for step in range(STEPS):
            plain.load_state_dict(network.state_dict())
            expected[step] = jacobian(plain, step)
            values = losses(network, step)
            values.backward(weighting(engine.compute_gramian(values)))
            optimizer.step()
            optimizer.zero_grad()
    read = open_dump(tmp_path / "d")
    assert read.steps.tolist() == [0, 3, 6]
    for s, step in enumerate(read.steps):
        J = expected[step].astype(np.float64)
        np.testing.assert_allclose(read["shared_gram"][s, 0], J @ J.T, rtol=1e-4, atol=1e-6)
    assert np.isfinite(read["shared_weights"].values).all()
