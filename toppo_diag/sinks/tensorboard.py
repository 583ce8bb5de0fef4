"""Scalars as an event file of TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from toppo.combiners.scalars import tag
from toppo_diag.output import Row

_OURS = ".toppo"
"""The end of the names of our event files, so that a second export replaces the first."""


def write(rows: Sequence[Row], axis: str, stem: Path) -> Path:
    """Write an event file into the directory `stem`; `tensorboard --logdir` of its parent shows it under this name."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for old in stem.glob(f"events.*{_OURS}"):
        old.unlink()
    writer = EventFileWriter(str(stem), filename_suffix=_OURS)
    for row in rows:
        value = Summary.Value(tag=tag(row["side"], row["name"], row["task"]), simple_value=row["value"])
        writer.add_event(Event(step=row["step"], wall_time=time.time(), summary=Summary(value=[value])))
    writer.close()
    return next(stem.glob(f"events.*{_OURS}"))
