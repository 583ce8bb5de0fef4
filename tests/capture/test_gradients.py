"""Slabs against K separate backward passes, Grams against float64."""

import math

import pytest
import torch

from toppo.capture import OneHotLinear, Slab, TaskLayerNorm, TaskLinear, with_one_hot
from toppo.training.learner.networks import Actor, Critic, NetworkShape

SHAPE = NetworkShape(n_tasks=5, obs_dim=7, action_dim=3, hidden=(16, 12))


def task_losses(network: torch.nn.Module, obs: torch.Tensor, tasks: slice = slice(None)) -> torch.Tensor:
    """One loss per task, (K,), nonlinear in the output and different for each task."""
    y = network(obs, tasks).flatten(1)
    return (y.square() * torch.arange(1, SHAPE.n_tasks + 1)[tasks, None]).mean(1)


def observations(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Observations (K, n, obs_dim)."""
    return torch.randn(5, 11, 7, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("block", [1, 2, 5])
@pytest.mark.parametrize("layernorm", [False, True])
@pytest.mark.parametrize("kind", [Actor, Critic])
def test_slab_rows_are_the_gradients_of_each_tasks_own_loss(kind, layernorm, block):
    network = kind(SHAPE, layernorm, torch.Generator().manual_seed(0)).double()
    obs = observations(torch.float64)
    slab = Slab(network, 5)
    for i in range(0, 5, block):
        tasks = slice(i, i + block)
        with slab.attached(tasks):
            task_losses(network, obs[tasks], tasks).sum().backward()
    losses = task_losses(network, obs)
    for i in range(5):
        naive = torch.autograd.grad(losses[i], slab.parameters, retain_graph=True)
        expected = torch.cat([g.flatten() for g in naive])
        torch.testing.assert_close(slab.rows()[i], expected, rtol=1e-12, atol=1e-14)


def test_forward_is_that_of_ordinary_layers_on_the_one_hot_input():
    """With a slab attached, without gradients, and in plain use: torch's own layers on (obs, one-hot)."""
    network = Critic(SHAPE, True, torch.Generator().manual_seed(0)).double()
    obs = observations(torch.float64)
    x = with_one_hot(obs, 5)
    for layer in [*network.trunk, network.output]:
        if isinstance(layer, torch.nn.Linear):
            x = torch.nn.functional.linear(x, layer.weight, layer.bias)
        elif isinstance(layer, torch.nn.LayerNorm):
            x = torch.nn.functional.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
        else:
            x = x.clamp_min(0)
    with Slab(network, 5).attached():
        inside = network(obs)
    with torch.no_grad():
        without = network(obs)
    for y in (inside, without, network(obs)):
        torch.testing.assert_close(y, x.squeeze(-1), rtol=1e-12, atol=1e-12)


def test_one_hot_layer_passes_gradients_on_to_observations():
    layer = OneHotLinear(7, 5, 16).double()
    obs, again = (observations(torch.float64).requires_grad_() for _ in range(2))
    layer(obs).square().sum().backward()
    with Slab(layer, 5).attached():
        layer(again).square().sum().backward()
    torch.testing.assert_close(again.grad, obs.grad, rtol=1e-12, atol=1e-12)


def test_shared_parameters_get_no_grad_and_per_task_ones_do():
    network = Actor(SHAPE, False, torch.Generator().manual_seed(0))
    with Slab(network, 5).attached():
        (task_losses(network, observations()) + network.log_std.sum(1)).sum().backward()
    assert network.log_std.grad is not None
    assert all(p.grad is None for name, p in network.named_parameters() if name != "log_std")


def test_a_slab_refuses_inputs_of_other_tasks():
    """Without this check their gradients would go into the rows of other tasks."""
    for layer in (TaskLinear(7, 3), TaskLayerNorm(7), OneHotLinear(7, 5, 3)):
        slab = Slab(torch.nn.Sequential(layer), 5)
        for obs in (observations()[:3], observations().flatten(0, 1)):
            with slab.attached(slice(1, 3)), pytest.raises(ValueError, match="a slab of 2 tasks is attached"):
                layer(obs)


def test_layout_covers_every_shared_parameter_in_order():
    network = Critic(SHAPE, True, torch.Generator().manual_seed(0))
    slab = Slab(network, 5)
    assert [part.name for part in slab.layout] == [name for name, _ in network.named_parameters()]
    assert slab.size == sum(p.numel() for p in network.parameters()) == slab.rows().shape[1]


@pytest.mark.parametrize("n_tasks", [10, 50])
def test_gram_of_a_wide_slab_is_good_to_float32_chunks(n_tasks):
    layer = torch.nn.Sequential(TaskLinear(300, 400), TaskLayerNorm(400))  # 121,200 columns: 60 chunks
    slab = Slab(layer, n_tasks)
    rows = torch.randn(n_tasks, slab.size, generator=torch.Generator().manual_seed(2))
    rows *= torch.logspace(-3, 3, n_tasks)[:, None]
    slab.load(rows)
    assert torch.equal(slab.rows(), rows)
    exact = rows.double() @ rows.double().T
    norms = exact.diagonal().sqrt()
    error = (slab.gram() - exact).abs() / torch.outer(norms, norms)
    assert error.max() < 5e-7  # float32 sums of 2k products. A float32 product over all columns has 1.5e-5.
    assert torch.equal(slab.gram(), slab.gram().T)


def test_combine_is_the_weighted_sum_of_rows():
    network = Critic(SHAPE, False, torch.Generator().manual_seed(0))
    slab = Slab(network, 5)
    rows = torch.randn(5, slab.size, generator=torch.Generator().manual_seed(3))
    slab.load(rows)
    weights, out = torch.tensor([0.5, 0.0, 2.0, 1.0, 3.0]), torch.empty(slab.size)
    slab.combine(weights, out)
    torch.testing.assert_close(out, (weights[:, None] * rows).sum(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_grams_are_those_of_each_parameters_columns(dtype):
    """Against the definition in fp64. fp32 products of 2,048 columns are good to 1e-6 of |g_i| |g_j|."""
    torch.manual_seed(2)
    layers = [TaskLinear(60, 70), TaskLinear(70, 1)]
    slab = Slab(torch.nn.Sequential(*layers).to(dtype), 5)
    slab.load(torch.randn(5, slab.size, dtype=dtype))
    whole = slab.gram()
    grams = slab.layer_grams()
    assert grams.dtype == torch.float64
    assert len(grams) == len(slab.layout) == 4
    J = slab.rows().double()
    sizes = [math.prod(part.shape) for part in slab.layout]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    for gram, columns in zip(grams, J.split(sizes, dim=1), strict=True):
        exact = columns @ columns.T
        norms = exact.diagonal().sqrt()
        assert ((gram - exact).abs() <= tolerance * torch.outer(norms, norms)).all()
    norms = whole.diagonal().sqrt()
    assert ((grams.sum(0) - whole).abs() <= tolerance * torch.outer(norms, norms)).all()
    assert torch.equal(slab.gram(), whole)  # computing the layers has not touched it
