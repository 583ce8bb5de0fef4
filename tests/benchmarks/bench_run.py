"""Where the time of a real run goes, and how far it is from the least it could take.

    make profile                                         # three collects of MT10: the README's table
    python -m tests.benchmarks.bench_run --benchmark MT10 --env-steps 2000000 --name demo-2m

Trains a real run into dumps/<name> with the paper's settings, dumps every 5 collects and the paper's evaluations. After
every collect it stops the run's clock and times a sample of the floor on the same machine in the same minute: a plain
forward and backward of both networks for every minibatch (torch's own layers on one-hot inputs), and the accelerated
environment steps on all cores, none of which ever waits: actions of the present policy, played again without it. Also,
alone: mj_step, the policy's calls, and the matrix products of that forward and backward. What a slow spell of the
machine does to a collect it does to its floor, so judge by the ratio.

Prints the table and writes it, with the ratio, to dumps/<name>/profile.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import mujoco
import numpy as np
import torch
from rich.console import Console
from threadpoolctl import threadpool_limits

from toppo.training.config import TrainConfig, resolve
from toppo.training.envs.metaworld import Episode, environment_seed, not_compared, task_names, task_specs
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, OBS_DIM
from toppo.training.envs.units import LANES, Unit, shares, units
from toppo.training.learner.networks import Actor, Critic, NetworkShape
from toppo.training.learner.policy import ActorPolicy
from toppo.training.learner.stopwatch import PHASES
from toppo.training.learner.update import Learner
from toppo.training.run.directory import Run
from toppo.training.run.progress import Display
from toppo.training.run.schedule import Schedule, plan
from toppo.training.run.trainer import Trainer, build_learner

MINIBATCHES = 12
"""Sampled after each collect for the floor of the update."""


def play(connection: Connection, mine: list[Unit], reward: str, seed: int) -> None:
    """A process that, given a policy, answers with the seconds its units take: stepped as workers step them, but with
    the policy's actions known beforehand; by mj_step alone; in the policy's calls alone.
    """
    threadpool_limits(1)  # as in the workers
    rng, number = np.random.default_rng(seed), 0
    while True:
        policy: ActorPolicy = connection.recv()
        number += 1
        seconds = dict.fromkeys(("environment", "physics", "policy"), 0.0)
        for unit in mine:
            for part, own in unit_seconds(unit, policy, reward, environment_seed(seed, number), rng).items():
                seconds[part] += own
        connection.send(seconds)


def unit_seconds(unit: Unit, policy: ActorPolicy, reward: str, seed: int, rng: np.random.Generator) -> dict[str, float]:
    """Seconds of one unit, see `play`."""
    m = len(unit.members)
    tasks, actions = np.full(m, unit.spec.index), np.empty((HORIZON, m, ACTION_DIM), np.float32)

    def built() -> tuple[list[Episode], np.ndarray]:
        episodes = [
            Episode(unit.spec, reward, environment_seed(seed, unit.spec.index, copy), not not_compared())
            for copy in unit.members
        ]
        return episodes, np.stack([episode.reset() for episode in episodes])

    episodes, obs = built()
    for step in actions:
        mean, std = policy.act(obs, tasks)
        step[:] = (mean + std * rng.standard_normal(mean.shape)).clip(-1, 1)
        obs = np.stack([episode.step(own)[0] for episode, own in zip(episodes, step, strict=True)])
    for episode in episodes:
        episode.close()

    episodes, obs = built()
    times = [time.perf_counter()]
    for step in actions:
        for episode, own in zip(episodes, step, strict=True):
            episode.step(own)
    times.append(time.perf_counter())
    for env in (episode._env for episode in episodes):
        for _ in range(HORIZON):
            mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)
    times.append(time.perf_counter())
    for _ in range(HORIZON):
        policy.act(obs, tasks)
    times.append(time.perf_counter())
    for episode in episodes:
        episode.close()
    return dict(zip(("environment", "physics", "policy"), np.diff(times).tolist(), strict=True))


class Floor:
    """Times what no trainer of this kind can do without, in seconds a collect.

    Args:
        config: resolved; its environments are shared out among as many processes as the run has workers.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        schedule = plan(config)
        self._scale_environment = config.env_steps_per_collect / (HORIZON * config.n_tasks * LANES)
        self._scale_update = schedule.updates / MINIBATCHES
        self._n = schedule.steps_per_task // config.minibatches
        context = multiprocessing.get_context("spawn")
        self._pool: list[tuple[Any, Connection]] = []
        every = units(task_specs(config.benchmark, config.seed), LANES, LANES)
        for part in shares(every, config.workers):
            mine = list(every[part.start : part.stop])
            ours, theirs = context.Pipe()
            process = context.Process(target=play, args=(theirs, mine, config.reward, config.seed), daemon=True)
            process.start()
            self._pool.append((process, ours))
        shape = NetworkShape(config.n_tasks, OBS_DIM, ACTION_DIM, config.hidden)
        generator = torch.Generator().manual_seed(0)
        self._networks = (Actor(shape, False, generator), Critic(shape, config.layernorm != "none", generator))
        self._obs = torch.randn(config.n_tasks, self._n, OBS_DIM, generator=generator)

    def sample(self, policy: ActorPolicy) -> dict[str, float]:
        """Seconds a collect of each part of the floor, now, on the states that this policy goes to."""
        for _, connection in self._pool:
            connection.send(policy)
        found = [connection.recv() for _, connection in self._pool]
        # The mean: what it takes all processes at once, were the work shared out so that they end together.
        played = {part: self._scale_environment * float(np.mean([own[part] for own in found])) for part in found[0]}
        return {
            **played,
            "update": self._timed(self._forward_backward) * self._scale_update,
            "products": self._timed(self._products) * self._scale_update,
        }

    def close(self) -> None:
        """End the processes."""
        for process, _ in self._pool:
            process.kill()

    def _timed(self, work: Callable[[], None]) -> float:
        start = time.perf_counter()
        for _ in range(MINIBATCHES):
            work()
        return time.perf_counter() - start

    def _forward_backward(self) -> None:
        for network in self._networks:
            network.zero_grad(set_to_none=True)
            network(self._obs).square().mean().backward()

    @torch.no_grad()
    def _products(self) -> None:
        """y = x W', dx = dy W, dW = dy' x for every layer, without the rest (and no dx for the first)."""
        rows = self.config.n_tasks * self._n
        for network in self._networks:
            weights = [p for name, p in network.named_parameters() if p.ndim == 2 and name != "log_std"]
            for i, weight in enumerate(weights):
                x = torch.ones(rows, weight.shape[1])
                dy = x @ weight.t()
                dy.t() @ x
                if i > 0:
                    dy @ weight


class ProfilingDisplay(Display):
    """The run's display, which measures the floor after every collect and keeps that out of the run's time."""

    def __init__(self, title: str, schedule: Schedule, console: Console, floor: Floor, learner: Learner) -> None:
        super().__init__(title, schedule, console)
        self._floor, self._learner = floor, learner
        self.samples: list[dict[str, float]] = []
        self.paused = 0.0

    def collect_done(self, *arguments: Any) -> None:
        """See `Display.collect_done`."""
        super().collect_done(*arguments)
        start = time.perf_counter()
        self.samples.append(self._floor.sample(ActorPolicy(self._learner.actor)))
        self.paused += time.perf_counter() - start


@contextmanager
def floor_of(config: TrainConfig) -> Iterator[Floor]:
    """A floor whose processes end with the block."""
    floor = Floor(config)
    try:
        yield floor
    finally:
        floor.close()


def profile(run: Run, config: TrainConfig) -> dict[str, Any]:
    """Train the run and say where its time went, in seconds per 1,000 environment steps."""
    schedule = plan(config)
    console = Console()
    learner = build_learner(config, task_names(config.benchmark))
    with floor_of(config) as floor, ProfilingDisplay(str(run.path), schedule, console, floor, learner) as display:
        floor.sample(ActorPolicy(learner.actor))  # the first warms up
        start = time.perf_counter()
        trainer = Trainer(run, schedule, learner, display)
        trainer.train()
        wall = time.perf_counter() - start - display.paused
        last = trainer.clock.lap().phases  # the last evaluation comes after the last collect's lap
    laps = run.read(run.timings_log)
    thousands = config.env_steps / 1000
    total = {name: (sum(lap[name] for lap in laps) + last[name]) / thousands for name in PHASES}
    parts = {name: sum(lap["update_parts"][name] for lap in laps) / thousands for name in laps[0]["update_parts"]}
    least = {name: sum(sample[name] for sample in display.samples) / thousands for name in display.samples[0]}
    total["start and end"] = wall / thousands - sum(total.values())
    floor = least["environment"] + least["update"]
    return {
        "benchmark": config.benchmark,
        "env_steps": config.env_steps,
        "workers": config.workers,
        "threads": torch.get_num_threads(),
        "wall_s": round(wall, 1),
        "per_1000_steps": _rounded(total),
        "update_parts": _rounded(parts),
        "floor": _rounded(least),
        "ratio": round(wall / thousands / floor, 3),
        "paper_schedule": paper_schedule(config, schedule, total, floor),
        "evaluations": len(schedule.evaluations),
        "mean_success": run.mean_success,
    }


def paper_schedule(config: TrainConfig, schedule: Schedule, total: dict[str, float], floor: float) -> dict[str, float]:
    """Seconds per 1,000 steps, ratio to the floor and evaluation's share, were this short run a stretch of the paper's
    whole one: evaluated as seldom, begun and ended once.

    Args:
        config, schedule: of the run.
        total, floor: its seconds per 1,000 steps.
    """
    whole = plan(resolve({"benchmark": config.benchmark}, preset="toppo"))
    own = len(schedule.evaluations) / schedule.collects
    evaluation = total["evaluation"] * len(whole.evaluations) / whole.collects / own
    once = total["start and end"] * config.env_steps / whole.config.env_steps
    steady = sum(total.values()) - total["evaluation"] - total["start and end"]
    there = steady + evaluation + once
    return {
        "per_1000_steps": round(there, 4),
        "ratio": round(there / floor, 3),
        "evaluation": round(evaluation / there, 3),
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


def describe(found: dict[str, Any]) -> str:
    """The table of a profile."""
    wall = found["wall_s"] / (found["env_steps"] / 1000)
    floor = found["floor"]
    lines = [f"{'s per 1,000 steps':<32} {'run':>8} {'share':>7} {'floor':>8}   limit"]
    alone = f"mj_step alone {floor['physics']:.4f}, policy alone {floor['policy']:.4f}"
    limits = {
        "environment": (floor["environment"], alone),
        "update": (floor["update"], f"matrix products alone {floor['products']:.4f}"),
    }
    for name, seconds in found["per_1000_steps"].items():
        least, limit = limits.get(name, (None, ""))
        shown = "" if least is None else f"{least:.4f}"
        lines.append(f"{name:<32} {seconds:>8.4f} {seconds / wall:>7.1%} {shown:>8}   {limit}".rstrip())
        if name == "update":
            for part, own in found["update_parts"].items():
                lines.append(f"  {part:<30} {own:>8.4f} {own / wall:>7.1%}")
    lines.append(f"{'all':<32} {wall:>8.4f} {1:>7.1%} {floor['environment'] + floor['update']:>8.4f}")
    lines.append(
        f"{found['benchmark']}, {found['env_steps']:,} steps in {found['wall_s'] / 60:.1f} min "
        f"({found['evaluations']} evaluations, {found['workers']} workers, {found['threads']} threads): "
        f"{found['ratio']:.2f} times the floor"
    )
    paper = found["paper_schedule"]
    steps = resolve({"benchmark": found["benchmark"]}, preset="toppo").env_steps
    lines.append(
        f"as a stretch of the paper's whole run, an evaluation every fourth collect: {paper['ratio']:.2f} times, "
        f"evaluation {paper['evaluation']:.1%}; {steps / 1e6:.0f}M steps would take "
        f"{paper['per_1000_steps'] * steps / 3.6e6:.1f} h"
    )
    return "\n".join(lines)


def main() -> None:
    """Profile one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="MT10")
    parser.add_argument("--env-steps", type=int, required=True)
    parser.add_argument("--name", default=None)
    given = parser.parse_args()
    options = {"benchmark": given.benchmark, "env_steps": given.env_steps, "device": "cpu"}
    config = resolve(options, preset="toppo")
    every = min(5, plan(config).collects)
    config = resolve({**options, "dump_every": every}, preset="toppo")
    run = Run.create(given.name, config)
    found = profile(run, config)
    (run.path / "profile.json").write_text(json.dumps(found, indent=2) + "\n")
    print(describe(found))


if __name__ == "__main__":
    main()
