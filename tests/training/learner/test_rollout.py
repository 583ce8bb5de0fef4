"""Advantages against the double loop of their definition; minibatches are a partition."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from toppo.training.learner.rollout import Batch, generalised_advantage, stratified_minibatches
from toppo.training.run.estimate import made_up_rollout


def test_gae_is_its_definition():
    rng = np.random.default_rng(0)
    rewards, values = rng.standard_normal((2, 3, 20)), rng.standard_normal((2, 3, 21))
    gamma, lam = 0.99, 0.97
    advantage, target = generalised_advantage(torch.from_numpy(rewards), torch.from_numpy(values), gamma, lam)
    delta = rewards + gamma * values[..., 1:] - values[..., :-1]
    for t in range(20):
        expected = sum((gamma * lam) ** (s - t) * delta[..., s] for s in range(t, 20))
        np.testing.assert_allclose(advantage[..., t], expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(target, advantage.numpy() + values[..., :-1])


def test_truncation_bootstraps_the_final_observation():
    """A constant reward r with V = r / (1 - gamma) everywhere has no advantage, also at the last step."""
    rewards, value = torch.ones(1, 1, 50, dtype=torch.float64), 1 / (1 - 0.99)
    advantage, _ = generalised_advantage(rewards, torch.full((1, 1, 51), value, dtype=torch.float64), 0.99, 0.97)
    np.testing.assert_allclose(advantage, 0, atol=1e-11)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])])
@pytest.mark.parametrize("cut", [(slice(0, 3), slice(3, 6)), (slice(0, None, 2), slice(1, None, 2))])
def test_a_batch_loaded_in_pieces_is_the_rollout(device, cut):
    rollout = made_up_rollout((2, 6, 5), 4, 3, np.random.default_rng(0))
    batch = Batch.empty(rollout, torch.device(device))
    for field in fields(batch):
        getattr(batch, field.name).fill_(np.nan)
    for task in range(2):
        for episodes in cut:
            batch.load(rollout, task, episodes)
    for field in fields(batch):
        np.testing.assert_array_equal(getattr(batch, field.name).cpu().numpy(), getattr(rollout, field.name))


@pytest.mark.parametrize(("n_samples", "parts"), [(10_000, 32), (64, 5), (7, 3)])
def test_minibatches_partition_every_task(n_samples, parts):
    split = list(stratified_minibatches(4, n_samples, parts, torch.Generator().manual_seed(0), torch.device("cpu")))
    assert len(split) == parts
    assert {part.shape[1] for part in split} <= {n_samples // parts, n_samples // parts + 1}
    everything = torch.cat(split, dim=1)
    assert torch.equal(everything.sort(dim=1).values, torch.arange(n_samples).expand(4, -1))
    assert not torch.equal(everything[0], everything[1])  # each task has a permutation of its own
