"""What may be recorded: tensors, lists, sparse matrices, plain numbers, and names that come and go."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toppo.dump import DumpError, DumpWriter, ScalarSpec, export, open_dump, verify

TASKS = ["a", "b"]
J = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def create(path: Path, **changes: Any) -> DumpWriter:
    return DumpWriter.create(path, tasks=TASKS, sides={"t": 3}, **changes)


def sparse_rows() -> Any:
    return pytest.importorskip("scipy.sparse").csr_matrix(J)


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor(J, requires_grad=True),
        [torch.tensor(J[0], requires_grad=True), torch.tensor(J[1]).double()],
        [J[0].tolist(), J[1].tolist()],
        (J[0], torch.tensor(J[1])),
        torch.tensor(J).to_sparse(),
        torch.tensor(J.T).mT,
        torch.tensor(np.repeat(J, 2, axis=1))[:, ::2],
        J[:, ::-1][:, ::-1],
        J.astype(">f8"),
        J.astype(int),
        torch.tensor(J, dtype=torch.bfloat16),
        torch.tensor(J, dtype=torch.float16),
        sparse_rows(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_gradients_of_any_form(store: Path, given: Any) -> None:
    with create(store) as writer:
        writer.record(step=0, t=given)
    np.testing.assert_array_equal(open_dump(store).slab_values("t", 0, 0), J)


@pytest.mark.parametrize(
    "given",
    [
        [torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)],
        [1, 2.0],
        (np.float16(1), decimal.Decimal(2)),
        np.array([1, 2], np.uint8),
        torch.tensor([1.0, 2.0], requires_grad=True),
    ],
    ids=str,
)
def test_numbers_of_any_form(store: Path, given: Any) -> None:
    with create(store) as writer:
        if any(isinstance(item, decimal.Decimal) for item in given):
            with pytest.raises(DumpError, match=r"loss is object \(2,\): neither a side \(t\) nor numbers of shape"):
                writer.record(step=0, t=J, loss=given)
            return
        writer.record(step=0, t=J, loss=given)
    np.testing.assert_array_equal(open_dump(store).values("loss"), [[[1, 2]]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "low"}, r"loss is <U3 \(\): neither a side \(t\) nor numbers of shape \(2,\), \(2, 2\) or \(\)"),
        ({"loss": [1.0, 2.0, 3.0]}, r"loss is float64 \(3,\): neither"),
        ({"loss": [[1.0], [2.0, 3.0]]}, r"loss is object \(2,\): neither"),
        ({"loss": [1.0, None]}, r"loss is object \(2,\): neither"),
        ({"loss": 1j}, r"loss is complex128 \(\): neither"),
        ({"t": J[:1]}, r"t slab is float32 \(1, 3\), expected floats \(2, 3\): \(tasks, parameters\)"),
        ({"t": [J[0], J[1, :2]]}, r"t slab is object \(2,\), expected floats \(2, 3\)"),
        ({"my loss": 1.0}, "'my loss' cannot name a side, scalar"),
        ({"t_gram_": {"a": 1}}, r"t_gram_ is object \(\): neither"),
    ],
)
def test_what_is_not_accepted_is_named_and_leaves_the_dump_usable(store: Path, values: dict, message: str) -> None:
    writer = create(store)
    writer.record(step=0, t=J)
    for step in (0.5, 1):  # first with a second thing that is wrong
        with pytest.raises(DumpError, match=message if step == 1 else "it must be a whole number"):
            writer.record(step=step, **({"t": J} | values))
    writer.record(step=1, t=J, accuracy=0.5)
    writer.close()
    dump = open_dump(store)
    assert dump.n_snapshots == 2
    assert set(dump.source.header.layout.minibatch_scalars) == {"accuracy"}
    assert verify(store).ok


def test_one_and_then_one_and_a_half(store: Path) -> None:
    with create(store) as writer:
        for step, value in enumerate((1, 1.5, True, np.int64(3), torch.tensor(4.5))):
            writer.record(step=step, t=J, epoch=value)
    np.testing.assert_array_equal(open_dump(store).values("epoch")[:, 0], [1, 1.5, 1, 3, 4.5])


LATE = [{}, {"lr": 0.1}, {"acc": [1.0, 2.0]}, {"lr": 0.2, "acc": [3, 4]}, {"zz": np.eye(2), "lr": None}, {"lr": 0.3}]


@pytest.mark.parametrize(("resumed", "cut"), [(None, None), *((n, cut) for n in range(1, 6) for cut in range(n))])
def test_numbers_that_come_and_go(store: Path, tmp_path: Path, resumed: int | None, cut: int | None) -> None:
    """A number that some records lack reads as NaN there, also where it was declared later. Nothing is unbound."""
    writer = create(store, minibatch_scalars={"count": ScalarSpec((), "i4")})
    kept = list(enumerate(LATE[:resumed]))
    for step, values in kept:
        writer.record(step=step, t=J + step, **values)
    if cut is not None:
        writer.abandon()
        writer = DumpWriter.resume(store, step=cut)
        kept = [*kept[:cut], *((10 + n, values) for n, values in enumerate(LATE))]
        for step, values in kept[cut:]:
            writer.record(step=step, t=J + step, **values)
    writer.close()
    for path in (store, export(store, tmp_path / "a.h5")):
        dump = open_dump(path)
        missing = {"lr": np.nan, "acc": [np.nan, np.nan], "zz": np.full((2, 2), np.nan), "count": -1}
        for name, fill in missing.items():
            if name not in dump:
                assert all(name not in values for _, values in kept)
                continue
            expected = [fill if values.get(name) is None else values[name] for _, values in kept]
            np.testing.assert_array_equal(dump.values(name)[:, 0], expected)
            np.testing.assert_array_equal(dump[name][::-2, 0], np.array(expected, float)[::-2])
        report = verify(path)
        assert report.ok, report.lines()


def test_a_late_number_is_bound_to_its_place(store: Path) -> None:
    with create(store) as writer:
        for step in range(5):
            writer.record(step=step, t=J, **({"lr": 0.1 * step} if step > 1 else {}))
    files = [store / "lr" / f"c.{n}.0" for n in (2, 4)]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, reversed(contents), strict=True):
        file.write_bytes(content)
    assert {(damage.array, damage.snapshot) for damage in verify(store).damages} == {("lr", 2), ("lr", 4)}


def test_names_are_not_endless(store: Path) -> None:
    writer = create(store)
    writer.record(step=0, t=J)
    writer.record(step=1, t=J, **{f"x{n}": n for n in range(32)})
    with pytest.raises(DumpError, match="more cannot be added after the first record: 32 of 32 such names are taken"):
        writer.record(step=2, t=J, more=1)
    writer.record(step=2, t=J)
    writer.close()
    assert verify(store).ok
