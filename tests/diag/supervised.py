"""A small supervised run of a stranger, recorded with numpy alone: several regressions on one shared hidden layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toppo.dump import DumpWriter, ParameterSlice

INPUTS, HIDDEN, BATCH, EVERY = 12, 16, 64, 10


def names(k: int) -> list[str]:
    """K names of targets. The first one has a comma."""
    return ["depth, metres", *(f"target {i}" for i in range(1, k))]


def record(
    path: Path,
    k: int = 4,
    *,
    snapshots: int = 12,
    weights: bool = False,
    absent: bool = False,
    diverges_at: int | None = None,
    seed: int = 0,
) -> str:
    """A dump of a run that trains on the mean of the losses, with a snapshot every `EVERY` steps.

    Args:
        path: of the dump.
        k: tasks.
        snapshots: how many.
        weights: whether to record the weights of the mean.
        absent: whether labels are sparse. Target 1 is there in every other snapshot, target 2 in the first half alone.
        diverges_at: the snapshot from which every gradient is NaN; None for none.
        seed: of the data and the network.
    """
    rng = np.random.default_rng(seed)
    W, b = 0.3 * rng.standard_normal((INPUTS, HIDDEN)), np.zeros(HIDDEN)
    A = 0.3 * rng.standard_normal((HIDDEN, k))
    truth = rng.standard_normal((INPUTS, k)) * np.logspace(-1, 0.5, k)
    sides = {
        "encoder": [
            ParameterSlice("encoder.layers.0.self_attention.output_projection.weight", (INPUTS, HIDDEN)),
            ParameterSlice("encoder.layers.0.bias", (HIDDEN,)),
            ParameterSlice("encoder.bias_before_norm", (HIDDEN,)),
        ],
        "heads": [ParameterSlice(f"heads.{i}.weight", (HIDDEN,)) for i in range(k)],
    }
    with DumpWriter.create(path, tasks=names(k), sides=sides, slabs=False, layer_grams=True, absences=absent) as dump:
        for step in range(snapshots * EVERY):
            X = rng.standard_normal((BATCH, INPUTS))
            hidden = np.tanh(X @ W + b)
            error = hidden @ A - X @ truth - 0.1 * rng.standard_normal((BATCH, k))
            at_output = 2 * error / BATCH
            at_hidden = at_output.T[:, :, None] * A.T[:, None, :] * (1 - hidden**2)  # (K, BATCH, HIDDEN)
            of_weight, of_bias = X.T @ at_hidden, at_hidden.sum(axis=1)
            of_heads = (hidden.T @ at_output).T
            rounding = 1e-9 * rng.standard_normal((k, HIDDEN))  # of a bias before a normalisation
            encoder = np.concatenate([of_weight.reshape(k, -1), of_bias, rounding], axis=1).astype(np.float32)
            heads = (np.eye(k)[:, :, None] * of_heads).reshape(k, -1).astype(np.float32)
            if step % EVERY == 0:
                n = step // EVERY
                if diverges_at is not None and n >= diverges_at:
                    encoder[:], heads[:] = np.nan, np.nan
                present = np.ones(k, bool)
                present[1:3] = n % 2 == 0, n < snapshots / 2
                more = {"present": present} if absent else {}
                if weights:
                    more |= {"encoder_weights": np.full(k, 1 / k), "heads_weights": np.full(k, 1 / k)}
                dump.record(step=step, encoder=encoder, heads=heads, loss=(error**2).mean(axis=0), **more)
            W -= 0.3 * of_weight.mean(axis=0)
            b -= 0.3 * of_bias.mean(axis=0)
            A -= 0.3 * of_heads.T / k
    return str(path)
