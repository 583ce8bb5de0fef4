"""Reads runs from disk: from the files that the trainer writes into a run directory, or from an archive.

The trainer itself is not needed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from toppo.common.errors import ToppoError
from toppo.common.jsonl import parse
from toppo.common.names import suggested_run
from toppo.dump import DumpError, config_differences, open_dump, run_logs
from toppo.dump.files import is_url, local_path
from toppo_diag.analysis.runs import METHOD, Run, labelled, method_name
from toppo_diag.errors import DiagnosticError, UsageError
from toppo_diag.reading.conditions import name_of

_NEEDED = ("benchmark", "reward", "seed", "env_steps", "eval_episodes", *METHOD)


def read_runs(paths: Sequence[str]) -> list[Run]:
    """Every run, labelled so that runs of one label differ only in their seed.

    Args:
        paths: run directories, also of live runs, or archives exported from one.

    Raises:
        UsageError: no run at a path, or the same run twice.
        DiagnosticError: a run has no evaluations, or damaged files.
    """
    return labelled([read_run(path) for path in paths])


def read_run(path: str) -> Run:
    """One run. Its label is its method.

    Raises:
        UsageError: no run at this path.
        DiagnosticError: it has no evaluations, or damaged files.
    """
    try:
        logs = run_logs(path)
    except DumpError as error:
        there = is_url(path) or local_path(path).exists()
        raise (DiagnosticError if there else UsageError)(str(error)) from None
    if "config.toml" not in logs:
        if Path(path).is_file():
            raise DiagnosticError(
                f"{path}: is an archive without the evaluations of its run; export it again from the run directory"
            )
        hint = suggested_run(Path(path), "give a run directory such as dumps/NAME")
        raise UsageError(f"{path}: is not a run: it has no config.toml; {hint}")
    config = _config(path, logs["config.toml"])
    _require_same_config(path, logs["config.toml"])
    tasks, env_steps, success = _evaluations(path, logs.get("evaluation.jsonl", ""))
    method = method_name(config, path)
    return Run(
        path=path,
        name=name_of(path),
        config=config,
        benchmark=config["benchmark"],
        reward=config["reward"],
        seed=config["seed"],
        tasks=tasks,
        env_steps=env_steps,
        success=success,
        method=method,
        label=method,
        env_steps_planned=config["env_steps"],
    )


def _config(path: str, text: str) -> dict[str, Any]:
    try:
        config = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DiagnosticError(f"{path}: config.toml is damaged ({error}); restore it") from None
    if missing := [key for key in _NEEDED if key not in config]:
        raise DiagnosticError(f"{path}: config.toml is damaged, it lacks {', '.join(missing)}; restore it")
    return config


def _require_same_config(path: str, text: str) -> None:
    """Refuse a config.toml that is not the configuration in the run's dump. A dump that cannot be opened says nothing.

    Raises:
        DiagnosticError: they differ.
    """
    try:
        attrs = open_dump(path).attrs
    except DumpError:
        return
    if differ := config_differences(text, attrs):
        raise DiagnosticError(f"{path}: config.toml was changed ({'; '.join(differ)}); restore it")


def _evaluations(path: str, text: str) -> tuple[tuple[str, ...], Int[np.ndarray, "S"], Float[np.ndarray, "S K"]]:
    """Tasks, steps and success from evaluation.jsonl. Text after the last newline is an unfinished line and is ignored.

    A live run leaves such a line.
    """
    tasks: tuple[str, ...] = ()
    steps: list[int] = []
    success: list[list[float]] = []
    try:
        log = parse(text, f"{path}: evaluation.jsonl", ("env_steps", "tasks"))
    except ToppoError as error:
        raise DiagnosticError(str(error)) from None
    for number, record in enumerate(log.lines, start=1):
        step = record["env_steps"]
        try:
            of_task = {task: float(values["success"]) for task, values in record["tasks"].items()}
        except KeyError:
            of_task = {}
        tasks = tasks or tuple(of_task)
        sound = bool(of_task) and tuple(of_task) == tasks and all(0 <= v <= 1 for v in of_task.values())
        if not sound:
            raise DiagnosticError(f"{path}: evaluation.jsonl, line {number} is damaged: restore the log from a copy")
        steps.append(step)
        success.append(list(of_task.values()))
    if not steps:
        raise DiagnosticError(f"{path}: has no evaluations yet; wait for its first one, or leave the run out")
    return tasks, np.array(steps, dtype=np.int64), np.array(success, dtype=np.float64)
