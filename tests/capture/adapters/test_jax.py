"""The JAX helpers with flax networks, and `recorded` in optax chains, against gradients computed one by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toppo.combiners import make
from toppo.dump import DumpWriter, StepAxis, open_dump

pytestmark = pytest.mark.slow  # JAX is a large dependency
jax = pytest.importorskip("jax", reason="needs the extra `jax`")
optax = pytest.importorskip("optax", reason="needs the extra `jax`")
linen = pytest.importorskip("flax.linen", reason="needs flax")
nnx = pytest.importorskip("flax.nnx")
adapter = pytest.importorskip("toppo.capture.adapters.jax")
jnp = jax.numpy
TASKS = ["a", "b", "c"]
X = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
Y = np.stack([X.sum(1), 5 * X[:, 0], -X[:, 1]], 1)


class Network(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(3)(jnp.tanh(linen.Dense(6)(x)))


network = Network()
PARAMS = network.init(jax.random.key(0), X)


def losses(params: Any) -> Any:
    return ((network.apply(params, X) - Y) ** 2).mean(0)


def by_hand(params: Any) -> np.ndarray:
    """J, one task after another, in the order of the leaves."""
    rows = [jax.grad(lambda p, i=i: losses(p)[i])(params) for i in range(3)]
    return np.stack([np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(row)]) for row in rows])


def test_pytrees_become_slabs_with_names():
    jacobian = jax.jacrev(losses)(PARAMS)
    layout = adapter.parameters(PARAMS)
    assert [part.name for part in layout] == [
        f"params.Dense_{n}.{name}" for n in range(2) for name in ("bias", "kernel")
    ]
    assert [part.shape for part in layout] == [(3,), (6, 3), (6,), (4, 6)]  # the outer layer is made first
    J = adapter.slab(jacobian)
    np.testing.assert_allclose(J, by_hand(PARAMS), rtol=1e-5, atol=1e-6)
    layers = np.asarray(adapter.layer_grams(jacobian))
    assert layers.shape == (4, 3, 3)
    np.testing.assert_allclose(layers.sum(0), J.astype(float) @ J.T.astype(float), rtol=1e-4, atol=1e-5)


def test_the_state_of_an_nnx_module_has_plain_names():
    layout = adapter.parameters(nnx.state(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Param))
    assert {part.name: part.shape for part in layout} == {"bias": (3,), "kernel": (4, 3)}


@pytest.mark.parametrize("combiner", ["mean", "fairgrad:alpha=1", "pcgrad"])
def test_an_optax_chain_records_and_combines(combiner: str, tmp_path: Path):
    options = {"slabs": False, "layer_grams": True, "step": StepAxis()}
    with DumpWriter.create(
        tmp_path / "d", tasks=TASKS, sides={"network": adapter.parameters(PARAMS)}, **options
    ) as dump:
        optimizer = optax.chain(adapter.recorded(dump, every=4, combiner=combiner), optax.sgd(0.05))

        @jax.jit
        def step(params: Any, state: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(jax.jacrev(losses)(params), state, params, losses=losses(params))
            return optax.apply_updates(params, updates), state

        params, state, before = PARAMS, optimizer.init(PARAMS), []
        for _ in range(10):
            before.append(params)
            params, state = step(params, state)
        jax.block_until_ready(params)
    read = open_dump(tmp_path / "d")
    assert read.steps.tolist() == [0, 4, 8]
    for s, n in enumerate(read.steps):
        J = by_hand(before[n]).astype(np.float64)
        np.testing.assert_allclose(read["network_gram"][s, 0], J @ J.T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(read["loss"][s, 0], losses(before[n]), rtol=1e-5)
        w = read["network_weights"].values[s, 0]
        if combiner != "pcgrad":  # it draws an order
            np.testing.assert_allclose(w, make(combiner).combine(J @ J.T).weights, rtol=1e-3)
        moved = [np.ravel(a - b) for a, b in zip(*(jax.tree.leaves(before[n + k]) for k in (0, 1)), strict=True)]
        np.testing.assert_allclose(np.concatenate(moved), 0.05 * w @ J, rtol=1e-3, atol=1e-5)


def test_a_gradient_that_is_not_finite_is_summed_and_recorded(tmp_path: Path):
    sides = {"network": adapter.parameters(PARAMS)}
    with DumpWriter.create(tmp_path / "d", tasks=TASKS, sides=sides, slabs=False, layer_grams=True) as dump:
        optimizer = adapter.recorded(dump, every=1, combiner="fairgrad")
        rows = jax.tree.map(lambda leaf: jnp.full((3, *leaf.shape), jnp.nan), PARAMS)
        updates, _ = optimizer.update(rows, optimizer.init(PARAMS), losses=jnp.ones(3))
        jax.block_until_ready(updates)
    read = open_dump(tmp_path / "d")
    assert np.isnan(read.values("network_gram")).all()
    np.testing.assert_array_equal(read.values("network_weights"), np.ones((1, 1, 3)))


def test_it_needs_no_torch():
    code = "import toppo.capture.adapters.jax, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
