"""What is in a dump, in a few plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from toppo.dump.reader import Dump


def describe(dump: Dump) -> dict[str, Any]:
    """A summary of a dump, in values that JSON can hold. It reads no gradients, so it is cheap for a dump of any size.

    Returns:
        A dictionary with these keys:

        - path; kind ("dump" or "archive"); schema_version; complete; bytes (on disk);
        - snapshots (committed); planned (snapshots, or None); minibatches (per snapshot);
        - stream_collects (committed); stream_entries (Grams per side and collect, or None);
        - step: {name, label} of what the run counts its progress in; steps: first and last, or None;
        - tasks; sides: {name: {parameters, tensors}};
        - slabs (whether gradients are kept); layer_grams (whether Grams by layer are); keepbits; gram_tolerance;
        - scalars: names of the run's own arrays;
        - not_finite: {side: number of gradients flagged as not finite};
        - absent: {task: number of minibatches that it took no part in}, of such tasks;
        - attrs: what the run recorded about itself.

    Raises:
        DumpError: one of the small arrays that this function reads is damaged.
    """
    source = dump.source
    layout = source.header.layout
    steps = dump.steps
    absent = np.sum(~dump.present, axis=(0, 1))
    return {
        "path": dump.path,
        "kind": source.kind,
        "schema_version": source.header.version,
        "complete": dump.complete,
        "snapshots": dump.n_snapshots,
        "planned": dump.n_planned,
        "minibatches": dump.n_minibatches,
        "stream_collects": dump.n_stream,
        "stream_entries": layout.stream_entries,
        "step": {"name": dump.step.name, "label": dump.step.label},
        "steps": [int(steps[0]), int(steps[-1])] if len(steps) else None,
        "tasks": list(dump.tasks),
        "sides": {
            side: {"parameters": layout.parameters(side), "tensors": [part.name for part in parts]}
            for side, parts in layout.sides.items()
        },
        "slabs": layout.slabs,
        "layer_grams": layout.layer_grams,
        "keepbits": layout.keepbits,
        "gram_tolerance": layout.gram_tolerance,
        "scalars": [*layout.minibatch_scalars, *layout.snapshot_scalars],
        "not_finite": {side: int(np.sum(dump.values(f"{side}_finite") == 0)) for side in dump.sides},
        "absent": {task: int(count) for task, count in zip(dump.tasks, absent, strict=True) if count},
        "bytes": source.size(),
        "attrs": dump.attrs,
    }
