"""What per-task gradients cost: median times of one minibatch update, all measured in one run, interleaved.

    toppo    PCGrad on the actor, FairGrad on the critic, PopArt, LN-c: the headline
    mean     the same networks and slabs, mean combiners
    plain    one backward of the mean loss, no per-task gradients: ordinary PPO on the same networks
    naive    K backward passes with retain_graph, then the headline's combiners

Run by `make bench`. Ratios are to plain; the dump is off. Then the peak memory of an MT50 update phase.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from toppo.common.allocator import keep_freed_memory
from toppo.training.config import resolve
from toppo.training.envs.interface import Rollout
from toppo.training.learner.networks import NetworkShape
from toppo.training.learner.rollout import Batch
from toppo.training.learner.update import SIDES, Learner, Targets
from toppo.training.run.estimate import made_up_rollout
from toppo.training.run.recording import Recorder
from toppo.training.run.schedule import plan

ROUNDS = {10: 25, 50: 9}
NAIVE_ROUNDS = 2  # it takes half a minute a round at K = 50


def make_learner(n_tasks: int, preset: str = "toppo", **options: object) -> Learner:
    """A learner of the paper's size on the CPU (or on the GPU, where there is one)."""
    config = resolve({"benchmark": f"MT{n_tasks}", **options}, preset=preset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Learner(
        config, NetworkShape(n_tasks, 39, 4, (400, 400, 400)), tuple(f"task-{i}" for i in range(n_tasks)), device
    )


def make_rollout(n_tasks: int, episodes: int) -> Rollout:
    """As many episodes a task of observations, actions and rewards of plausible scale."""
    return made_up_rollout((n_tasks, episodes, 500), 39, 4, np.random.default_rng(0))


def plain_update(learner: Learner, batch: Batch, targets: Targets) -> Callable[[torch.Tensor], None]:
    """Ordinary PPO on the learner's own networks: one backward of the mean loss, a clip of the whole gradient, one
    Adam step.
    """
    parameters = [*learner.actor.parameters(), *learner.critic.parameters(), *learner.popart.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learner.config.learning_rate, fused=True)

    def update(samples: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        losses = learner.losses(batch, targets, samples)
        total = losses["loss_actor"] - learner.config.entropy_coef * losses["entropy"]
        (total + learner.config.value_coef * losses["loss_critic"]).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, learner.config.max_grad_norm)
        optimizer.step()

    return update


def naive_update(learner: Learner, batch: Batch, targets: Targets) -> Callable[[torch.Tensor], None]:
    """The textbook way to K gradients: K walks over one retained graph; then the headline's combiners and step."""
    shared = {side: learner.slabs[side].parameters for side in SIDES}
    orders = np.random.default_rng(0)

    def update(samples: torch.Tensor) -> None:
        learner.actor.log_std.grad = None
        for p in learner.popart.parameters():
            p.grad = None
        losses = learner.losses(batch, targets, samples)
        own = [learner.actor.log_std, *learner.popart.parameters()]
        rows: dict[str, list[torch.Tensor]] = {side: [] for side in SIDES}
        for i in range(len(learner.tasks)):
            total = (
                losses["loss_actor"][i] - learner.config.entropy_coef * losses["entropy"][i] + losses["loss_critic"][i]
            )
            grads = torch.autograd.grad(total, [*shared["actor"], *shared["critic"], *own], retain_graph=True)
            n_actor, n_shared = len(shared["actor"]), len(shared["actor"]) + len(shared["critic"])
            rows["actor"].append(torch.cat([g.flatten() for g in grads[:n_actor]]))
            rows["critic"].append(torch.cat([g.flatten() for g in grads[n_actor:n_shared]]))
            for p, g in zip(own, grads[n_shared:], strict=True):
                p.grad = g if p.grad is None else p.grad + g
        for side, own_rows in rows.items():
            learner.slabs[side].load(torch.stack(own_rows))
        learner.step_from_slabs(losses, 0, orders)

    return update


def time_updates(n_tasks: int, without: Sequence[str] = ()) -> dict[str, float]:
    """Median seconds of each kind of update, interleaved so that a slow spell of the machine hits all alike.

    Args:
        n_tasks: K.
        without: kinds to leave out.
    """
    keep_freed_memory()
    n = 3_125 // 10
    rollout = make_rollout(n_tasks, 2)
    kinds: dict[str, Callable[[torch.Tensor], object]] = {}
    for kind, combiners in (
        ("toppo", {}),
        ("mean", {"actor_combiner": "mean", "critic_combiner": "mean"}),
        ("plain", {}),
        ("naive", {}),
    ):
        if kind in without:
            continue
        learner = make_learner(n_tasks, **combiners)
        batch = learner.prepare(rollout)
        targets = learner.targets(batch, refresh_popart=True)
        if kind == "plain":
            kinds[kind] = plain_update(learner, batch, targets)
        elif kind == "naive":
            kinds[kind] = naive_update(learner, batch, targets)
        else:
            orders = np.random.default_rng(0)
            kinds[kind] = lambda s, learner=learner, b=batch, t=targets, o=orders: learner.step(b, t, s, 0, o)
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round_ in range(ROUNDS[n_tasks] + 1):
        samples = torch.stack([torch.randperm(1000, generator=generator)[:n] for _ in range(n_tasks)])
        for kind, update in kinds.items():
            if kind == "naive" and round_ > NAIVE_ROUNDS:
                continue
            start = time.perf_counter()
            update(samples)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_ > 0:  # the first warms up
                seconds[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(times) for kind, times in seconds.items()}


def peak_memory_of_an_mt50_update(dumped: bool) -> float:
    """Peak resident GB of this process after one MT50 update phase, cut to one repeat, on a full-size rollout.

    Args:
        dumped: whether the phase is recorded, five minibatches of it, as by --dump-every.
    """
    keep_freed_memory()
    every = {"dump_every": 1} if dumped else {}
    learner = make_learner(50, repeats=1, env_steps=500_000, env_steps_per_epoch=500_000, **every)
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory) / "dump.zarr", plan(learner.config), learner, {}, None)
        recorder.begin(1)
        rollout = make_rollout(50, 20)  # kept, as a backend keeps its own
        learner.update(learner.prepare(rollout), 1, recorder.observe)
        recorder.abandon()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print the table, and the ratios as JSON: on the last line and, after --json, to a file."""
    per_sample: dict[int, float] = {}
    for flag, dumped in (("--memory", False), ("--memory-dumped", True)):
        if flag in sys.argv:
            which = ", dumped" if dumped else ""
            peak = peak_memory_of_an_mt50_update(dumped)
            print(f"peak memory of an MT50 update{which}: {peak:.2f} GB resident, torch itself included")
            return
    ratios: dict[str, float] = {}
    print(f"{'K':>3} {'update':<6} {'ms':>8} {'/ plain':>8}   ({torch.get_num_threads()} threads, {torch.__version__})")
    for n_tasks in (10, 50):
        times = time_updates(n_tasks)
        per_sample[n_tasks] = times["toppo"] / n_tasks  # as many samples a task at any K
        for kind, seconds in times.items():
            ratios[f"{kind}_{n_tasks}"] = round(seconds / times["plain"], 3)
            print(f"{n_tasks:>3} {kind:<6} {1e3 * seconds:>8.1f} {seconds / times['plain']:>8.2f}")
    ratios["toppo_per_sample_50_to_10"] = round(per_sample[50] / per_sample[10], 3)
    print(json.dumps(ratios))
    if "--json" in sys.argv:
        target = Path(sys.argv[sys.argv.index("--json") + 1])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(ratios, indent=2) + "\n")


if __name__ == "__main__":
    main()
