"""The runs, dumps and archives in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toppo.common.errors import ToppoError
from toppo.dump import Dump
from toppo.dump.files import is_url, local_path
from toppo_diag.reading.live import look
from toppo_diag.request import Source


def runs_in(source: Source) -> list[dict[str, Any]]:
    """One row for each run, dump and archive in a local directory; [] where there is none, or it is a run itself.

    Returns:
        Rows by name: state, steps and those planned, snapshots and mean success of each.
    """
    if isinstance(source, Dump) or is_url(source):
        return []
    place = local_path(source)
    if not place.is_dir() or _is_run(place):
        return []
    return [_row(path) for path in sorted(place.iterdir(), key=lambda path: path.name) if _is_run(path)]


def _is_run(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_file():
        return path.suffix == ".h5"
    named = path.suffix == ".zarr" or (path / "dump.zarr").is_dir()  # also where its metadata is lost
    return named or any((path / name).is_file() for name in ("config.toml", "zarr.json"))


def _row(path: Path) -> dict[str, Any]:
    try:
        view = look(path)
    except ToppoError:
        row = {"state": "cannot be read", "steps": None, "planned_steps": None, "snapshots": None}
        return {"run": path.name, **row, "mean_success": None}
    known = [values[key] for values in view.tasks.values() for key in ("success", "accuracy") if key in values]
    mean = view.mean_success if view.mean_success is not None or not known else sum(known) / len(known)
    return {
        "run": path.name,
        "state": view.state,
        "steps": view.steps,
        "planned_steps": view.planned_steps,
        "snapshots": None if view.snapshots is None else view.snapshots[0],
        "mean_success": mean,
    }
