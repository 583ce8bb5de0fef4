"""Small runs with known gradients, recorded as the trainer records them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from toppo.combiners import make
from toppo.dump import ENV_STEPS, DumpWriter, ParameterSlice, ScalarSpec, gram

TASKS = ("reach-v3", "push-v3", "door-open-v3", "drawer-close-v3")
LAYERS = [ParameterSlice("trunk.0.weight", (8, 6)), ParameterSlice("trunk.0.bias", (6,)), ParameterSlice("out", (10,))]
P = 64
SNAPSHOTS, MINIBATCHES, ENTRIES = 5, 2, 3
VALUE_COEF = 1e-3


def gradients(side: str, snapshot: int, minibatch: int, tasks: tuple[str, ...] = TASKS, dead: int = -1) -> np.ndarray:
    """(K, P) fp32; the critic's spread over two decades, conflicts in both, one task dead if asked."""
    k = len(tasks)
    rng = np.random.default_rng([len(side), snapshot, minibatch])
    J = rng.standard_normal((k, P)) + 0.5 * rng.standard_normal(P)
    if side == "critic":
        J *= np.logspace(-1, 1, k)[:, None]
    if dead >= 0:
        J[dead] = 0
    return J.astype(np.float32)


def sigma(snapshot: int, k: int) -> np.ndarray:
    """PopArt's scale at a snapshot."""
    return np.exp(np.random.default_rng(snapshot).uniform(-2, 2, k))


def success(snapshot: int, k: int) -> np.ndarray:
    return np.linspace(0, 1, k) * (snapshot + 1) / SNAPSHOTS


def record(
    path: Path,
    *,
    tasks: tuple[str, ...] = TASKS,
    popart: str = "welford",
    layernorm: str = "none",
    snapshots: int = SNAPSHOTS,
    stream: bool = True,
    slabs: bool = True,
    dead: int = -1,
    combiner: str = "fairgrad:alpha=1",
    complete: bool = True,
    bare: bool = False,
) -> Path:
    """A run directory; `bare` leaves out all that only the trainer knows."""
    k = len(tasks)
    specs: dict[str, Any] = {
        "critic_weights": ScalarSpec(("task",)),
        "loss_critic": ScalarSpec(("task",)),
        "critic_order": ScalarSpec(("task", "other"), "i8"),
    }
    writer = DumpWriter.create(
        path / "dump.zarr",
        tasks=list(tasks),
        sides={"actor": LAYERS, "critic": LAYERS},
        snapshots=max(snapshots, 1),
        minibatches=MINIBATCHES,
        slabs=slabs,
        step=ENV_STEPS,
        stream=(max(snapshots, 1), ENTRIES) if stream else None,
        minibatch_scalars={} if bare else specs,
        snapshot_scalars={} if bare else {"popart_sigma": ScalarSpec(("task",)), "success_ema": ScalarSpec(("task",))},
        attrs={}
        if bare
        else {
            "config": {"popart": popart, "layernorm": layernorm, "env_steps": 500_000 * snapshots},
            "combiners": {"critic": combiner, "actor": "mean"},
            "gradient_scale": {"actor": 1.0, "critic": VALUE_COEF},
        },
    )
    order = np.array([[j for j in range(k) if j != i] for i in range(k)])
    for s in range(snapshots):
        if stream:
            grams = {
                side: np.stack([gram(gradients(side, s, e, tasks, dead)) for e in range(ENTRIES)])
                for side in ("actor", "critic")
            }
            writer.record_stream(s, grams=grams, step=500_000 * (s + 1))
        for m in range(MINIBATCHES):
            J = {side: gradients(side, s, m, tasks, dead) for side in ("actor", "critic")}
            G = {side: gram(J[side]) for side in J}
            scalars = (
                {}
                if bare
                else {
                    "critic_weights": make(combiner).combine(VALUE_COEF**2 * G["critic"], order=order).weights,
                    "loss_critic": np.arange(1.0, k + 1),
                    "critic_order": order,
                }
            )
            writer.record_minibatch(m, slabs=J if slabs else None, grams=G, scalars=scalars)
        writer.commit_snapshot(
            step=500_000 * (s + 1),
            collect=5 * (s + 1),
            scalars={} if bare else {"popart_sigma": sigma(s, k), "success_ema": success(s, k)},
        )
    writer.close() if complete else writer.abandon()
    return path
