"""JAX: per-task gradients as pytrees, recorded without torch. `recorded` is an optax transformation.

`jax.jacrev` of a function that returns K losses gives a pytree in the structure of the parameters. Each of its leaves
has a first axis of length K, one row per task. These functions take such a pytree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import io_callback

from toppo.combiners import Combiner, make
from toppo.dump import DumpWriter, ParameterSlice


def parameters(params: Any) -> list[ParameterSlice]:
    """Name and shape of each leaf of the parameters, such as "Dense_0.kernel", for `sides` of `DumpWriter.create`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [ParameterSlice(_name(path), leaf.shape) for path, leaf in leaves]


def _name(path: tuple[Any, ...]) -> str:
    """The keys of a leaf, joined by dots, without the box that flax.nnx puts around each array."""
    boxed = len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value")
    return str(jax.tree_util.keystr(path[:-1] if boxed else path, simple=True, separator="."))


def slab(jacobian: Any) -> np.ndarray:
    """J (K, P), float32: the leaves (K, ...) of a pytree of per-task gradients, side by side."""
    leaves = [np.asarray(leaf, dtype=np.float32) for leaf in jax.tree.leaves(jacobian)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def layer_grams(jacobian: Any) -> jax.Array:
    """G (L, K, K) of each of the L leaves (K, ...). It can be compiled."""
    rows = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(jacobian)]
    return jnp.stack([jnp.matmul(row, row.T, precision="highest") for row in rows])


class Recorded(NamedTuple):
    """State of `recorded`: the number of updates so far."""

    count: jax.Array


def recorded(
    dump: DumpWriter, *, every: int = 100, combiner: str | Combiner = "mean", seed: int = 0
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation from per-task gradients to one gradient, which records on its way.

    Put it first in `optax.chain`. Its `update` takes the pytree of per-task gradients, and as `losses` the K losses.

    Args:
        dump: has one side with the `parameters`, and was created with `slabs=False, layer_grams=True`.
        every: updates between two records.
        combiner: spec or combiner that weighs the tasks.
        seed: seed of the random orders that some combiners need.

    Raises:
        UsageError: an unknown combiner, or one that needs more than gradients and losses.
    """
    chosen = make(combiner) if isinstance(combiner, str) else combiner
    chosen.check_use(len(dump.tasks))
    orders = np.random.default_rng(seed)
    (side,) = dump.sides

    def combine(count: np.ndarray, grams: np.ndarray, losses: np.ndarray) -> np.ndarray:
        grams, loss = np.asarray(grams, np.float64), np.asarray(losses, np.float64)
        order = chosen.draw_order(orders, len(loss))
        gram = grams.sum(axis=0)
        finite = bool(np.isfinite(gram).all())  # otherwise the step is along the sum, as without a combiner
        weights = chosen.combine(gram, losses=loss, order=order).weights if finite else np.ones(len(loss))
        if count % every == 0:
            recording = {f"{side}_layer_gram": grams, f"{side}_weights": weights, "loss": loss}
            dump.record(step=int(count), **recording)
        return weights.astype(np.float32)

    def init(params: Any) -> Recorded:
        return Recorded(jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Recorded, params: Any = None, *, losses: Any, **_: Any) -> tuple[Any, Recorded]:
        answer = jax.ShapeDtypeStruct(losses.shape, jnp.float32)
        weights = io_callback(combine, answer, state.count, layer_grams(updates), losses, ordered=True)
        combined = jax.tree.map(lambda rows: jnp.tensordot(weights, rows, 1).astype(rows.dtype), updates)
        return combined, Recorded(state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)
