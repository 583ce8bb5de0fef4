"""Chunks hold the bytes that zarr itself would write. The arithmetic of slabs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numcodecs import Blosc

from tests.dump import recordings as run
from toppo.dump import DumpWriter, gram, open_dump
from toppo.dump.numerics import finite_rows, round_mantissa

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)


def test_chunks_are_zarrs_own_bytes(complete: Path, tmp_path: Path) -> None:
    """Every array of a dump, rewritten through zarr, has the same chunks."""
    for name in (path.parent.name for path in complete.glob("*/zarr.json")):
        source = zarr.open_array(complete / name, mode="r")
        copy = zarr.from_array(tmp_path / name, data=source, write_data=False)
        copy.with_config({"write_empty_chunks": True})[...] = source[...]
        ours, theirs = run.tree(complete / name), run.tree(tmp_path / name)
        del ours["zarr.json"], theirs["zarr.json"]
        assert ours == theirs, name


@given(arrays(np.float32, st.integers(1, 40), elements=FLOATS), st.integers(1, 23))
def test_rounding(values: np.ndarray, keepbits: int) -> None:
    """The result has few bits, is close, and does not change when rounded again. What is not finite stays."""
    rounded = round_mantissa(values, keepbits)
    np.testing.assert_array_equal(round_mantissa(rounded, keepbits), rounded)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(rounded[~finite], values[~finite])
    assert np.isfinite(rounded[finite]).all()
    exact, got = values[finite].astype(float), rounded[finite].astype(float)
    smallest = float(np.finfo(np.float32).smallest_subnormal) * 2.0 ** (23 - keepbits)
    assert (np.abs(got - exact) <= np.maximum(2.0 ** -(keepbits + 1) * np.abs(exact), smallest)).all()


def test_rounding_is_to_nearest_even() -> None:
    values = np.array([1.0, 1.25, 1.5, 1.75, 1.125, 1.375, -1.375], np.float32)
    np.testing.assert_array_equal(round_mantissa(values, 2), [1.0, 1.25, 1.5, 1.75, 1.0, 1.5, -1.5])
    assert round_mantissa(values, 23) is values


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 20_000), st.integers(0, 2**32 - 1))
def test_gram(tasks: int, width: int, seed: int) -> None:
    slab = np.random.default_rng(seed).standard_normal((tasks, width)).astype(np.float32)
    exact = slab.astype(np.longdouble) @ slab.T.astype(np.longdouble)
    np.testing.assert_allclose(gram(slab), exact.astype(float), rtol=1e-12, atol=1e-12 * width)
    np.testing.assert_array_equal(gram(slab), gram(slab).T)


def test_gram_neither_overflows_nor_underflows_fp32() -> None:
    slab = np.array([[1e30, 0], [0, 1e-30]], np.float32)
    np.testing.assert_allclose(gram(slab), np.diag([1e60, 1e-60]), rtol=1e-6)


@pytest.mark.parametrize(("bad", "flag"), [(np.nan, 0), (np.inf, 0), (-np.inf, 0), (3e38, 1), (0.0, 1)])
def test_finite_rows(bad: float, flag: int) -> None:
    slab = np.ones((2, 5), np.float32)
    slab[1, 4] = bad
    np.testing.assert_array_equal(finite_rows(slab), [1, flag])


@pytest.mark.parametrize(("zeros", "largest"), [("none", 1.05), ("scattered", 0.75), ("in runs", 0.7), ("all", 0.02)])
def test_long_rows_of_any_kind_are_small_and_any_tool_reads_them(store: Path, zeros: str, largest: float) -> None:
    """How a row is compressed depends on what it holds. It is never much larger than with the format's own codec."""
    rng = np.random.default_rng(0)
    P = 60_000
    J = rng.standard_normal((2, P)).astype(np.float32)
    kept = {
        "none": np.ones((2, P), bool),
        "scattered": rng.random((2, P)) < 0.55,
        "in runs": np.repeat(rng.random((2, P // 50)) < 0.55, 50, axis=1),
        "all": np.zeros((2, P), bool),
    }[zeros]
    J[~kept] = 0
    with DumpWriter.create(store, tasks=["a", "b"], sides={"t": P}) as writer:
        writer.record(step=0, t=J)
    np.testing.assert_array_equal(open_dump(store).slab_values("t", 0, 0), J)
    np.testing.assert_array_equal(zarr.open_array(store / "t_grad", mode="r")[0, 0], J)
    size = (store / "t_grad" / "c.0.0.0.0").stat().st_size
    assert size < largest * J.nbytes
    ours = Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE)
    assert size < 1.15 * sum(len(ours.encode(row)) for row in J) + 100
