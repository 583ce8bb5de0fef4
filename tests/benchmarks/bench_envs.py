"""What environment steps cost: the official package as it is, accelerated, and MuJoCo alone, all in one run.

    collects    the same workers, with the policy: steps a second, and a CPU second where other work disturbs; and
                EnvPool, where it is installed
    per task    CPU time of a step under random actions, in this process, interleaved; and of a reset

Run by `make bench`; `--costs` prints the tables of `toppo/envs/costs.py` instead. Ratios go to the last line as JSON.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import mujoco
import numpy as np
import psutil
import torch

from toppo.training.envs.envpool import EnvPoolBackend
from toppo.training.envs.metaworld import TaskSpec, environment_class, task_names, task_specs
from toppo.training.envs.sizes import ACTION_DIM, HORIZON, OBS_DIM
from toppo.training.envs.workers import MetaWorldBackend
from toppo.training.learner.networks import Actor, NetworkShape
from toppo.training.learner.policy import ActorPolicy

PATHS = ("official", "accelerated")
WORKERS = 2
BENCHMARKS = ("MT10", "MT50")
EPISODES = 20  # a task and collect, as in training, of one copy: the package as it is compiles a model for every copy
COPIES = 4  # of a task, with EnvPool
ROUNDS, STEPS = 8, 25  # of each path and task


def make_policy(n_tasks: int) -> ActorPolicy:
    """The paper's actor, untrained."""
    shape = NetworkShape(n_tasks, OBS_DIM, ACTION_DIM, (400, 400, 400))
    return ActorPolicy(Actor(shape, False, torch.Generator().manual_seed(0)))


def collect_rates(benchmark: str) -> dict[str, tuple[float, float]]:
    """Steps a second, and steps a CPU second of the workers, of collects on each path in turn."""
    backends = {
        path: MetaWorldBackend(
            benchmark,
            reward="v2",
            seed=0,
            workers=WORKERS,
            copies=1,
            episodes_per_env=EPISODES,
            eval_episodes=1,
            accelerated=path == "accelerated",
        )
        for path in PATHS
    }
    wall, cpu = {}, {}
    try:
        for path, backend in backends.items():
            policy = make_policy(len(backend.tasks))
            before, start = worker_seconds(backend), time.perf_counter()
            backend.rollout(policy, 0, lambda _: None)
            wall[path] = time.perf_counter() - start
            cpu[path] = worker_seconds(backend) - before
        steps = len(backends["official"].tasks) * EPISODES * HORIZON
    finally:
        for backend in backends.values():
            backend.close()
    return {path: (steps / wall[path], steps / cpu[path]) for path in PATHS}


def envpool_rate(benchmark: str) -> float:
    """Steps a second of a collect with EnvPool, in the layout it is quickest in, routed tasks included."""
    backend = EnvPoolBackend(
        benchmark, seed=0, workers=WORKERS, copies=COPIES, episodes_per_env=EPISODES // COPIES, eval_episodes=1
    )
    try:
        policy, start = make_policy(len(backend.tasks)), time.perf_counter()
        backend.rollout(policy, 0, lambda _: None)
        return len(backend.tasks) * EPISODES * HORIZON / (time.perf_counter() - start)
    finally:
        backend.close()


def worker_seconds(backend: MetaWorldBackend) -> float:
    """CPU time its workers have spent."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in backend.worker_pids)


@dataclass(frozen=True)
class Times:
    """CPU microseconds of one task: the best of some rounds, since other work on the machine only ever adds."""

    official: float
    accelerated: float
    physics: float
    """mj_step of a step's five substeps, without which there is no Meta-World."""
    reset: float
    """Accelerated."""


def task_times(spec: TaskSpec) -> Times:
    """A few steps on every path, again and again."""
    actions = np.random.default_rng(0).standard_normal((STEPS, ACTION_DIM), dtype=np.float32).clip(-1, 1)
    envs = [environment_class(spec.name, fast)(reward_function_version="v2") for fast in (False, True)]
    for env in envs:
        env.set_task(spec.goals[0])
        env.reset()
    resets = [microseconds(envs[1].reset) for _ in range(3)]
    rounds = []
    for _ in range(ROUNDS):
        model, data = envs[1].model, copy.copy(envs[1].data)
        steps: list[Callable[[np.ndarray], object]] = [env.step for env in envs]
        steps.append(lambda _, m=model, d=data: mujoco.mj_step(m, d, nstep=5))  # type: ignore[misc]
        rounds.append([microseconds(lambda step=step: [step(a) for a in actions]) / STEPS for step in steps])
    return Times(*np.min(rounds, axis=0).tolist(), reset=min(resets))


def microseconds(work: Callable[[], object]) -> float:
    """CPU time of this thread."""
    start = time.thread_time()
    work()
    return 1e6 * (time.thread_time() - start)


def print_costs() -> None:
    """The tables of `toppo/envs/costs.py`."""
    policy, rows = make_policy(10), 5
    obs, tasks = np.zeros((rows, OBS_DIM)), np.arange(rows)
    print(f"ACTING = {min(microseconds(lambda: policy.act(obs, tasks)) for _ in range(200)) / rows:.0f}")
    for spec in task_specs("MT50", 0):
        times = task_times(spec)
        print(f'    "{spec.name}": {times.accelerated + times.reset / HORIZON:.0f},', flush=True)


def main() -> None:
    """Print the tables, and the ratios as JSON on the last line."""
    torch.set_num_threads(1)
    if "--costs" in sys.argv:
        print_costs()
        return
    ratios: dict[str, float] = {}
    print(f"{'us of CPU a step':<30} {'official':>9} {'accelerated':>12} {'ratio':>6} {'mj_step':>8} {'reset':>8}")
    every = {spec.name: task_times(spec) for spec in task_specs("MT50", 0)}
    for name, t in every.items():
        ratios[name] = round(t.official / t.accelerated, 3)
        numbers = f"{t.official:>9.0f} {t.accelerated:>12.0f} {ratios[name]:>6.2f} {t.physics:>8.0f} {t.reset:>8.0f}"
        print(f"{name:<30} {numbers}", flush=True)
    for benchmark in BENCHMARKS:
        mean = [statistics.mean(getattr(every[n], kind) for n in task_names(benchmark)) for kind in (*PATHS, "physics")]
        ratios[f"{benchmark}_steps"] = round(mean[0] / mean[1], 3)
        ratios[f"{benchmark}_limit"] = round(mean[0] / mean[2], 3)
        print(
            f"{'mean of ' + benchmark:<30} {mean[0]:>9.0f} {mean[1]:>12.0f} {mean[0] / mean[1]:>6.2f} {mean[2]:>8.0f}"
        )
    print(f"\n{f'collects, {WORKERS} workers':<30} {'official':>9} {'accelerated':>12} {'ratio':>6}")
    for benchmark in BENCHMARKS:
        rates = collect_rates(benchmark)
        for kind, official, accelerated in zip(("s", "CPU second"), *(rates[path] for path in PATHS), strict=True):
            ratios[f"{benchmark}_a_{kind.replace(' ', '_')}"] = round(accelerated / official, 3)
            label = f"{benchmark} steps a {kind}"
            print(f"{label:<30} {official:>9.0f} {accelerated:>12.0f} {accelerated / official:>6.2f}", flush=True)
        if find_spec("envpool"):
            ratios[f"{benchmark}_envpool"] = round(envpool_rate(benchmark) / rates["accelerated"][0], 3)
            print(f"{benchmark} a s, EnvPool / accelerated: {ratios[f'{benchmark}_envpool']:.2f}", flush=True)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
