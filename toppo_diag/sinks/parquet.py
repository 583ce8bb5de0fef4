"""Scalars as a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toppo_diag.output import Row


def write(rows: Sequence[Row], axis: str, stem: Path) -> Path:
    """Write the long table as a Parquet file, with `step` named as in the run."""
    import pandas as pd

    file = stem.with_name(f"{stem.name}.parquet")
    pd.DataFrame(list(rows)).rename(columns={"step": axis}).to_parquet(file, engine="pyarrow", index=False)
    return file
