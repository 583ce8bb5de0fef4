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
        - env_steps: first and last, or None;
        - tasks; sides: {name: {parameters, tensors}};
        - slabs (whether gradients are kept); keepbits; gram_tolerance;
        - scalars: names of the run's own arrays;
        - not_finite: {side: number of gradients flagged as not finite};
        - attrs: what the run recorded about itself.

    Raises:
        DumpError: one of the small arrays that this function reads is damaged.
    """
    source = dump.source
    layout = source.header.layout
    env_steps = dump.env_steps
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
        "env_steps": [int(env_steps[0]), int(env_steps[-1])] if len(env_steps) else None,
        "tasks": list(dump.tasks),
        "sides": {
            side: {"parameters": layout.parameters(side), "tensors": [part.name for part in parts]}
            for side, parts in layout.sides.items()
        },
        "slabs": layout.slabs,
        "keepbits": layout.keepbits,
        "gram_tolerance": layout.gram_tolerance,
        "scalars": [*layout.minibatch_scalars, *layout.snapshot_scalars],
        "not_finite": {side: int(np.sum(dump.values(f"{side}_finite") == 0)) for side in dump.sides},
        "bytes": source.size(),
        "attrs": dump.attrs,
    }
