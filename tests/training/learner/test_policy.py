"""The policy that simulators see against the actor it is a copy of."""

import pickle

import numpy as np
import pytest
import torch

from toppo.training.learner.networks import Actor, NetworkShape
from toppo.training.learner.policy import ActorPolicy


@pytest.mark.parametrize("layernorm", [False, True])
def test_policy_is_the_actor(layernorm):
    actor = Actor(NetworkShape(6, 39, 4, (64, 48, 32)), layernorm, torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    obs = torch.randn(6, 1, 39, generator=generator, dtype=torch.float64)
    expected = actor(obs)[:, 0].detach().numpy()
    policy = pickle.loads(pickle.dumps(ActorPolicy(actor.float())))
    tasks = np.array([4, 1, 1, 5])
    mean, std = policy.act(obs[tasks, 0].numpy(), tasks)
    assert mean.dtype == std.dtype == np.float32
    scale = np.abs(expected).max()
    np.testing.assert_allclose(mean, expected[tasks], rtol=0, atol=1e-5 * scale)  # fp32 sums of 64 terms, three times
    np.testing.assert_allclose(std, actor.log_std.detach().exp()[tasks].numpy(), rtol=1e-6)


def test_policy_is_detached_from_training():
    actor = Actor(NetworkShape(3, 7, 2, (8,)), True, torch.Generator().manual_seed(0))
    policy = ActorPolicy(actor)
    obs, tasks = np.ones((3, 7)), np.arange(3)
    before = policy.act(obs, tasks)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter += 1
    for a, b in zip(before, policy.act(obs, tasks), strict=True):
        np.testing.assert_array_equal(a, b)
