"""Reads what a run recorded, for the report: Grams of every side, weights, layers, and its curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from toppo.dump import Dump, DumpError, run_logs
from toppo_diag.analysis.recorded import Curve, LayerGrams, RunRecord, SideRecord
from toppo_diag.analysis.scale import scaled
from toppo_diag.analysis.typical import typical_of_each
from toppo_diag.errors import DiagnosticError
from toppo_diag.reading.conditions import (
    SUCCESS,
    SUCCESS_LABEL,
    combiner_of,
    gradient_scale,
    has_popart,
    of_trainer,
    sums_losses,
)
from toppo_diag.reading.dumps import Grams, read_grams, read_layers, read_stream, stream_note
from toppo_diag.request import Request

MOST_SLAB_BYTES = 4e9
"""Gradients that are read for the layers of a run without layer Grams. More would take minutes."""
TRAINER_FACTS = ("benchmark", "reward", "popart", "layernorm", "seed")
"""What the report's head says of the configuration of a run of TOPPO's trainer."""
MOST_FACTS = 8
"""How much it says of any other configuration."""
_LEAST_SNAPSHOTS = 3
_PROGRESS = {"success": "success (training)", "episode_return": "return", "loss_actor": "", "loss_critic": ""}
"""Numbers of each task in a run's log, and how the report calls them."""


_LABELS = {"episode_return": "return", "success": "success (training)", "success_ema": SUCCESS_LABEL}


def read_record(dump: Dump, name: str, scheduler: str = "serial") -> RunRecord:
    """Everything that the report shows of a run.

    Args:
        dump: the run's dump or archive.
        name: how the report calls the run.
        scheduler: where gradients are read, as in `toppo_diag.reading.schedulers`.

    Raises:
        DumpError: the dump is damaged.
    """
    missing: list[str] = []
    sides = {}
    for side in dump.sides:
        record = _side(dump, side, scheduler, missing)
        if record is not None:
            sides[side] = record
    if not sides:
        missing.append("No gradients are recorded yet: wait for the first snapshot, or record with one.")
    elif not dump.n_snapshots:
        missing.append("No snapshot yet, so weights, layers and conditions are missing. Record with snapshots.")
    elif stream_note(dump):
        missing.append("No Gram stream, so the views show snapshots only. Record with a stream to see every collect.")
    curves = _curves(dump)
    if not any(curve.name.startswith(("success", "accuracy")) for curve in curves):
        missing.append('No success was recorded. Record a scalar "success" or "accuracy", one number for each task.')
    if not any(curve.name.startswith("loss") for curve in curves):
        missing.append('No losses were recorded. Record a scalar "loss", one number for each task.')
    return RunRecord(
        name=name,
        path=dump.path,
        tasks=dump.tasks,
        step_label=dump.step.label,
        step_name=dump.step.name,
        sides=sides,
        curves=curves,
        facts=_facts(dump),
        group=_group(dump.attrs),
        complete=dump.complete,
        missing=tuple(missing),
    )


def _side(dump: Dump, side: str, scheduler: str, missing: list[str]) -> SideRecord | None:
    request = Request.of(dump, scheduler=scheduler)
    if not dump.n_snapshots and not dump.n_stream:
        return None
    dumped = _read(read_grams, dump, side, request, missing) if dump.n_snapshots else _empty(dump)
    stream = _read(read_stream, dump, side, request, missing) if dump.n_stream else dumped
    scale = gradient_scale(dump, side)
    n, k = dumped.values.shape[:2]
    per_task = {
        name: v.astype(float) for name, v in dumped.beside.items() if v.shape == (n, k) and v.dtype.kind in "fi"
    }
    single = {name: v.astype(float) for name, v in dumped.beside.items() if v.shape == (n,) and v.dtype.kind in "fi"}
    there = _present(dumped)
    weights, spec = per_task.get(f"{side}_weights"), combiner_of(dump, side)
    if weights is not None:
        weights = _weights(weights, there, side, missing)
    elif sums_losses(dump):
        weights, spec = np.ones((n, k)), "sum"
    if weights is None and n:
        missing.append(f"The {side}'s weights were not recorded, so its step is taken as a plain sum of the losses.")
    finite, at = _finite(dump, side)
    layers = _layers(dump, side, scheduler, missing) if dump.n_snapshots else None
    return SideRecord(
        steps=stream.env_steps,
        gram=stream.values,
        dropped=stream.dropped,
        present=_present(stream),
        at=dumped.env_steps,
        dumped=scaled(dumped.values, scale),
        there=there,
        scale=scale,
        weights=weights,
        spec=spec,
        status=single.get(f"{side}_status"),
        sigma=_sigma(dump, side, dumped),
        finite=finite,
        finite_at=at,
        per_task=per_task,
        single=single,
        layers=layers,
    )


def _read(
    read: Callable[[Dump, str, Request], Grams], dump: Dump, side: str, request: Request, missing: list[str]
) -> Grams:
    """The Grams in which some task is known. Where there is none, the reason is told as missing."""
    try:
        return read(dump, side, request).some_known()
    except DiagnosticError as error:
        if str(error) not in missing:
            missing.append(str(error))
        return _empty(dump)


def _empty(dump: Dump) -> Grams:
    """No Gram at all."""
    k, none = len(dump.tasks), np.empty(0, dtype=np.int64)
    return Grams(dump.tasks, np.empty((0, k, k)), dump.step, none, none, none, {}, {})


def _weights(
    recorded: Float[np.ndarray, "M K"], there: Bool[np.ndarray, "M K"], side: str, missing: list[str]
) -> Float[np.ndarray, "M K"] | None:
    """The recorded weights; None where no minibatch has one for each task that took part."""
    whole = int(np.isfinite(np.where(there, recorded, 0.0)).all(axis=1).sum())
    if 0 < whole < len(recorded):
        told = f"The {side}'s weights were recorded in {whole} of {len(recorded)} minibatches."
        missing.append(f"{told} The others do not count in its step.")
    return recorded if whole else None


def _present(grams: Grams) -> Bool[np.ndarray, "N K"]:
    """Whether each task is known in each minibatch."""
    return np.ones(grams.values.shape[:2], dtype=bool) if grams.known is None else grams.known


def _sigma(dump: Dump, side: str, dumped: Grams) -> Float[np.ndarray, "M K"] | None:
    if not len(dumped.values) or side != "critic" or not has_popart(dump):
        return None
    return np.asarray(dumped.beside["popart_sigma"])


def _finite(dump: Dump, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each gradient is finite, for each dumped minibatch, and the steps of each.

    Before the first snapshot, the Gram stream tells it, if every task always takes part.
    """
    if not dump.n_snapshots and dump.n_stream and "present" not in dump:
        stream = dump.values(f"{side}_gram_stream")
        finite = np.isfinite(np.diagonal(stream, axis1=2, axis2=3)).reshape(-1, len(dump.tasks))
        return finite, np.repeat(dump.values(f"stream_{dump.step.name}"), stream.shape[1])
    if not dump.n_snapshots:
        return np.empty((0, len(dump.tasks))), np.empty(0, dtype=np.int64)
    finite = dump.values(f"{side}_finite").reshape(-1, len(dump.tasks)) != 0  # -1 for an absent task
    return finite, np.repeat(dump.steps, dump.n_minibatches)


def _layers(dump: Dump, side: str, scheduler: str, missing: list[str]) -> LayerGrams | None:
    """The Grams of the layers: as recorded, or from the dumped gradients. Of many gradients, of some snapshots."""
    if not dump.has_layers(side):
        missing.append(f"The {side} has no layers: record Grams by layer, or gradients (slabs).")
        return None
    chosen = np.arange(dump.n_snapshots)
    if f"{side}_layer_gram" not in dump:
        size = 4 * len(dump.tasks) * sum(part.size for part in dump.parameters(side)) * dump.n_minibatches
        n = min(dump.n_snapshots, max(_LEAST_SNAPSHOTS, int(MOST_SLAB_BYTES // max(size, 1))))
        chosen = np.unique(np.linspace(0, dump.n_snapshots - 1, n).round().astype(int))
        if len(chosen) < dump.n_snapshots:
            missing.append(f"The layers of the {side} are shown at {len(chosen)} of {dump.n_snapshots} snapshots.")
    found = read_layers(dump, side, Request.of(dump, snapshot=chosen.tolist(), scheduler=scheduler))
    if found is None or not len(found.env_steps):
        return None
    return LayerGrams(tuple(found.values), found.env_steps, np.stack(list(found.values.values()), axis=1))


def _curves(dump: Dump) -> tuple[Curve, ...]:
    """Success, returns and losses: of the run's logs, and of the dump where the logs have none."""
    try:
        logs = run_logs(dump.path)
    except DumpError:  # a dump without a run around it
        logs = {}
    found = [
        *_logged(logs.get("evaluation.jsonl", ""), dump.tasks, {"success": "success (evaluation)"}),
        *_logged(logs.get("progress.jsonl", ""), dump.tasks, _PROGRESS),
    ]
    have = {curve.name for curve in found}
    if dump.n_snapshots:
        for name, spec in dump.source.specs.items():
            wanted = name in (*SUCCESS, "episode_return", "loss") or name.startswith("loss_")
            label = _LABELS.get(name, name)
            if not wanted or label in have or spec.dims[-1] != "task" or spec.dims[0] != "snapshot":
                continue
            values = dump.values(name).astype(float)
            if values.ndim == 3:
                values = np.stack([typical_of_each(of_snapshot) for of_snapshot in values])
            found.append(Curve(label, spec.units, dump.steps, values))
    return tuple(sorted(found, key=lambda curve: not curve.name.startswith(("success", "accuracy"))))


def _logged(text: str, tasks: Sequence[str], wanted: Mapping[str, str]) -> list[Curve]:
    """Numbers of each task in a log, as far as its lines are sound. Other commands report damage."""
    steps: list[int] = []
    rows: dict[str, list[list[float]]] = {name: [] for name in wanted}
    for line in text.split("\n")[:-1]:
        try:
            record = json.loads(line)
            at, of_task = int(record["env_steps"]), record["tasks"]
            row = {name: [_real(of_task[task].get(name)) for task in tasks] for name in wanted}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        steps.append(at)
        for name in wanted:
            rows[name].append(row[name])
    curves = [
        Curve(label or name, "return" if name == "episode_return" else "1", np.array(steps), np.array(rows[name]))
        for name, label in wanted.items()
        if steps
    ]
    return [curve for curve in curves if np.isfinite(curve.values).any()]


def _real(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _facts(dump: Dump) -> dict[str, str]:
    """What the run is, in few words."""
    attrs = dump.attrs
    facts: dict[str, str] = {}
    config = attrs.get("config", {})
    if isinstance(config, Mapping):
        told = TRAINER_FACTS if of_trainer(dump) else list(config)[:MOST_FACTS]
        facts |= {key: str(config[key]) for key in told if key in config}
    for side in dump.sides:
        if (spec := combiner_of(dump, side)) is not None:
            facts[f"{side} combiner"] = spec
    return facts


def _group(attrs: Mapping[str, Any]) -> str:
    """The settings of a run without its seed, as a text. Runs that recorded no settings are each their own."""
    config = attrs.get("config")
    if not isinstance(config, Mapping) or not config:
        return ""
    same = {key: value for key, value in config.items() if key not in ("seed", "workers", "device")}
    return json.dumps([same, attrs.get("combiners")], sort_keys=True, default=str)
