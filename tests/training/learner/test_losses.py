"""Losses against torch.distributions and loops written out."""

import numpy as np
import torch

from toppo.training import gaussian
from toppo.training.learner import losses

G = torch.Generator().manual_seed(0)
MEAN, ACTION = torch.randn(3, 8, 4, generator=G), torch.randn(3, 8, 4, generator=G)
LOG_STD = torch.randn(3, 4, generator=G) / 2


def test_log_prob_and_entropy_are_torchs():
    normal = torch.distributions.Normal(MEAN, LOG_STD.exp()[:, None, :])
    torch.testing.assert_close(gaussian.log_prob(MEAN, LOG_STD, ACTION), normal.log_prob(ACTION).sum(-1))
    torch.testing.assert_close(gaussian.entropy(LOG_STD), normal.entropy().sum(-1)[:, 0])


def test_advantages_are_standardised_per_task():
    a = torch.randn(3, 50, dtype=torch.float64) * torch.tensor([1.0, 1e3, 0.0], dtype=torch.float64)[:, None] + 5
    normal = losses.normalise_per_task(a)
    np.testing.assert_allclose(normal.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(normal[:2].square().mean(1), 1, rtol=1e-6)
    assert not normal[2].any()


def test_policy_loss_sample_by_sample():
    log_ratio, advantage = torch.randn(2, 30, generator=G), torch.randn(2, 30, generator=G)
    loss, cut = losses.policy_loss(log_ratio, advantage, 0.2)
    for k in range(2):
        terms, n_cut = [], 0
        for r, a in zip(log_ratio[k].exp().tolist(), advantage[k].tolist(), strict=True):
            plain, clipped = r * a, min(max(r, 0.8), 1.2) * a
            terms.append(min(plain, clipped))
            n_cut += clipped < plain
        np.testing.assert_allclose(loss[k], -np.mean(terms), rtol=1e-5)
        np.testing.assert_allclose(cut[k], n_cut / 30, rtol=1e-6)


def test_policy_gradient_of_cut_samples_is_zero():
    log_ratio = torch.tensor([[1.0, -1.0, 1.0, -1.0]], requires_grad=True)
    advantage = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    loss, cut = losses.policy_loss(log_ratio, advantage, 0.2)
    loss.sum().backward()
    assert log_ratio.grad is not None
    assert (log_ratio.grad[0, :2] == 0).all()
    assert (log_ratio.grad[0, 2:] != 0).all()
    assert cut.item() == 0.5


def test_value_loss_sample_by_sample():
    value, old, target = (torch.randn(2, 40, generator=G, dtype=torch.float64) for _ in range(3))
    loss, _ = losses.value_loss(value, old, target, 0.2)
    for k in range(2):
        terms = []
        for v, o, t in zip(value[k].tolist(), old[k].tolist(), target[k].tolist(), strict=True):
            clipped = o + min(max(v - o, -0.2), 0.2)
            terms.append(max((v - t) ** 2, (clipped - t) ** 2))
        np.testing.assert_allclose(loss[k], np.mean(terms), rtol=1e-12)


def test_value_clip_fraction_counts_exactly_the_samples_without_gradient():
    value = torch.randn(2, 200, generator=G, dtype=torch.float64, requires_grad=True)
    old, target = (torch.randn(2, 200, generator=G, dtype=torch.float64) for _ in range(2))
    loss, cut = losses.value_loss(value, old, target, 0.2)
    loss.sum().backward()
    assert value.grad is not None
    assert torch.equal((value.grad == 0).double().mean(1), cut)
    unclipped, none = losses.value_loss(value, old, target, None)
    torch.testing.assert_close(unclipped, (value - target).square().mean(1))
    assert not none.any()
