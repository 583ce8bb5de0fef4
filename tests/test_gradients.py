"""Slabs against the naive K graph walks, Grams against float64."""

import pytest
import torch

from toppo.gradients import Slab, TaskLayerNorm, TaskLinear
from toppo.networks import Actor, Critic, NetworkShape, with_one_hot

SHAPE = NetworkShape(n_tasks=5, obs_dim=7, action_dim=3, hidden=(16, 12))


def task_losses(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A loss per task (K,), nonlinear in the output and different for each task."""
    y = network(x).flatten(1)
    return (y.square() * torch.arange(1, len(y) + 1)[:, None]).mean(1)


@pytest.mark.parametrize("layernorm", [False, True])
@pytest.mark.parametrize("kind", [Actor, Critic])
def test_slab_rows_are_the_gradients_of_each_tasks_own_loss(kind, layernorm):
    network = kind(SHAPE, layernorm, torch.Generator().manual_seed(0)).double()
    x = with_one_hot(torch.randn(5, 11, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), 5)
    slab = Slab(network, 5)
    with slab.attached():
        task_losses(network, x).sum().backward()
    losses = task_losses(network, x)
    for i in range(5):
        naive = torch.autograd.grad(losses[i], slab.parameters, retain_graph=True)
        expected = torch.cat([g.flatten() for g in naive])
        torch.testing.assert_close(slab.data[i], expected, rtol=1e-12, atol=1e-14)


def test_attached_forward_is_the_ordinary_forward():
    network = Critic(SHAPE, True, torch.Generator().manual_seed(0))
    x = with_one_hot(torch.randn(5, 11, 7, generator=torch.Generator().manual_seed(1)), 5)
    with Slab(network, 5).attached():
        inside = network(x)
    torch.testing.assert_close(inside, network(x), rtol=0, atol=0)


def test_shared_parameters_get_no_grad_and_per_task_ones_do():
    network = Actor(SHAPE, False, torch.Generator().manual_seed(0))
    x = with_one_hot(torch.randn(5, 11, 7, generator=torch.Generator().manual_seed(1)), 5)
    with Slab(network, 5).attached():
        (task_losses(network, x) + network.log_std.sum(1)).sum().backward()
    assert network.log_std.grad is not None
    assert all(p.grad is None for name, p in network.named_parameters() if name != "log_std")


def test_layout_covers_every_shared_parameter_in_order():
    network = Critic(SHAPE, True, torch.Generator().manual_seed(0))
    slab = Slab(network, 5)
    assert [part.name for part in slab.layout] == [name for name, _ in network.named_parameters()]
    assert slab.size == sum(p.numel() for p in network.parameters()) == slab.data.shape[1]


def test_gram_of_a_wide_slab_is_good_to_fp32_chunks():
    layer = torch.nn.Sequential(TaskLinear(300, 400), TaskLayerNorm(400))  # 121,200 columns: 60 chunks
    slab = Slab(layer, 10)
    slab.data.copy_(
        torch.randn(10, slab.size, generator=torch.Generator().manual_seed(2)) * torch.logspace(-3, 3, 10)[:, None]
    )
    exact = slab.data.double() @ slab.data.double().T
    norms = exact.diagonal().sqrt()
    error = (slab.gram() - exact).abs() / torch.outer(norms, norms)
    assert error.max() < 5e-7  # fp32 sums of 2k products; a plain fp32 product over all columns is at 1.5e-5
    assert torch.equal(slab.gram(), slab.gram().T)


def test_combine_is_the_weighted_sum_of_rows():
    network = Critic(SHAPE, False, torch.Generator().manual_seed(0))
    slab = Slab(network, 5)
    slab.data.copy_(torch.randn(5, slab.size, generator=torch.Generator().manual_seed(3)))
    weights, out = torch.tensor([0.5, 0.0, 2.0, 1.0, 3.0]), torch.empty(slab.size)
    slab.combine(weights, out)
    torch.testing.assert_close(out, (weights[:, None] * slab.data).sum(0))
