"""PopArt's statistics against numpy, and its outputs against themselves before an update."""

import numpy as np
import pytest
import torch

from toppo.training.learner.popart import PopArt


def batches(seed: int, n: int = 4) -> list[torch.Tensor]:
    """Targets (K = 3, N) of very different scale, drifting from batch to batch."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 50.0, 1e3], dtype=torch.float64)[:, None]
    return [scale * (torch.randn(3, 40 + 10 * i, generator=g, dtype=torch.float64) * (1 + i) + 3 * i) for i in range(n)]


@pytest.mark.parametrize("statistics", ["welford", "ema"])
def test_values_survive_every_update_to_fp64_rounding(statistics):
    popart = PopArt(3, statistics)
    z = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        popart.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        popart.bias.copy_(torch.tensor([1.0, 0.0, 7.0]))
        for targets in batches(1):
            before = popart.denormalise(popart(z))
            popart.update(targets)
            after = popart.denormalise(popart(z))
            scale = popart.sigma[:, None] + popart.mu.abs()[:, None] + before.abs()
            assert ((after - before).abs() / scale).max() < 1e-14  # a few roundings of fp64


def test_welford_is_the_mean_and_deviation_of_everything_seen():
    popart = PopArt(3, "welford")
    for targets in batches(2):
        popart.update(targets)
    everything = torch.cat(batches(2), dim=1).numpy()
    np.testing.assert_allclose(popart.mu.numpy(), everything.mean(1), rtol=1e-12)
    np.testing.assert_allclose(popart.sigma.numpy(), everything.std(1), rtol=1e-12)
    assert (popart.count == everything.shape[1]).all()


def test_ema_weighs_batches_geometrically_without_bias():
    popart = PopArt(3, "ema", beta=0.25)
    for targets in batches(3):
        popart.update(targets)
    weights = 0.75 ** np.arange(3, -1, -1)
    weights /= weights.sum()
    first = sum(w * t.mean(1).numpy() for w, t in zip(weights, batches(3), strict=True))
    second = sum(w * t.square().mean(1).numpy() for w, t in zip(weights, batches(3), strict=True))
    np.testing.assert_allclose(popart.mu.numpy(), first, rtol=1e-12)
    np.testing.assert_allclose(popart.sigma.numpy(), np.sqrt(second - first**2), rtol=1e-10)


def test_normalise_undoes_denormalise_and_sigma_has_a_floor():
    popart = PopArt(2, "welford", sigma_min=1e-2)
    popart.update(torch.full((2, 5), 3.0, dtype=torch.float64))
    assert (popart.sigma == 1e-2).all()
    v = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(popart.denormalise(popart.normalise(v)), v)


def test_off_has_no_parameters_and_changes_nothing():
    popart = PopArt(2, "off")
    popart.update(torch.randn(2, 5))
    z = torch.randn(2, 5)
    assert not list(popart.parameters())
    assert torch.equal(popart.denormalise(popart(z)), z.double())
