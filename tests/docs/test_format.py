"""docs/format.md against a recorded dump: what the page says is in a store, and nothing else, is in it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toppo.dump.header as dump_header
import toppo.dump.schema as schema
from tests.dump.recordings import ENTRIES, MINIBATCHES, SIDES, TASKS, WIDTHS, create, record_run
from toppo.combiners.base import Status
from toppo.dump import StepAxis, open_dump
from toppo.dump.schema import with_offsets

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "format.md").read_text()
ARCHIVE = ROOT / "figures" / "data" / "toppo.h5"
Table = list[dict[str, str]]


def tables(header: str) -> list[Table]:
    """Every table of the page whose header line is `header`, cell by cell."""
    found = []
    blocks = re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    for block in blocks:
        lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        if " ".join(lines[0]) == header:
            assert all(len(line) == len(lines[0]) for line in lines), f"a row of the table {header!r} has lost a cell"
            found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    assert found, f"the page has no table with the columns {header}"
    return found


def code(cell: str) -> list[str]:
    """What stands in backticks in a cell."""
    return re.findall(r"`([^`]*)`", cell)


def per_side(rows: Table, step: str = "env_steps") -> Iterator[tuple[str, str, dict[str, str]]]:
    """(name, side, row) of a table's first column, with {side} and {step} filled in."""
    for row in rows:
        for template in code(next(iter(row.values())))[:1]:
            for side in SIDES if "{side}" in template else ("",):
                yield template.replace("{side}", side).replace("{step}", step), side, row


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("format") / "dump.zarr"
    record_run(path, snapshots=2, layer_grams=True, absences=True)
    return path


def document(store: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((store / name / "zarr.json").read_text())
    return content


ARRAYS = "array dims dtype units fill chunk codecs present"
COORDINATES = (
    *("snapshot", "minibatch", "task", "task_j", "actor_layer", "critic_layer"),
    *("env_steps", "collect", "stream_env_steps"),
)
NUMPY = {"u1": "uint8", "i8": "int64", "i4": "int32", "i1": "int8", "f8": "float64", "f4": "float32", "str": "string"}


def test_every_array_of_a_store_is_in_the_page_and_every_array_of_the_page_in_the_store(store: Path) -> None:
    (rows,) = tables(ARRAYS)
    scalars = ["loss", "iterations", "order", "popart_sigma"]  # declared by the recording
    on_page = {name for name, _, _ in per_side(rows)}
    in_store = {path.parent.name for path in store.glob("*/zarr.json")}
    assert in_store == on_page | set(scalars)


def test_arrays_are_as_their_row_says(store: Path) -> None:
    (rows,) = tables(ARRAYS)
    (codec_rows,) = tables("codecs chain of Zarr codecs")
    chains = {row["codecs"]: row["chain of Zarr codecs"] for row in codec_rows}
    for name, side, row in per_side(rows):
        array = document(store, name)
        assert array["dimension_names"] == [d.replace("{side}", side) for d in code(row["dims"])], name
        assert array["data_type"] == NUMPY[code(row["dtype"])[0]], name
        assert array["attributes"]["units"] == "".join(code(row["units"])), name
        fill = array["fill_value"]
        assert fill == {"-1": -1, "0": 0, "NaN": "NaN", '`""`': ""}[row["fill"]], name
        sizes = {"K": len(TASKS), "M": MINIBATCHES, "N": ENTRIES, "P": WIDTHS.get(side, 0), "1": 1}
        sizes["L"] = len(with_offsets(SIDES[side])) if side else 0
        # slabs; whole Grams, Grams by layer and flags; steps, collect and absences; scalars
        of_step = sum(len(TASKS) * MINIBATCHES for _ in SIDES) + 3 * len(SIDES) + 3 + 4
        sizes["64 + 4 n"] = 64 + 4 * (len(SIDES) + 1)
        sizes["64 + 4 (n + r)"] = 64 + 4 * (of_step + document(store, "")["attributes"]["layout"]["spare"])
        chunk = [sizes[c.strip()] for c in code(row["chunk"])[0].split(",")] if code(row["chunk"]) else array["shape"]
        assert array["chunk_grid"]["configuration"]["chunk_shape"] == chunk, name
        codecs = [codec["name"] for codec in array["codecs"]]
        if codecs == ["sharding_indexed"]:
            shard = array["codecs"][0]["configuration"]
            assert shard["chunk_shape"] == [1, 1, 1, WIDTHS[side]] and shard["index_location"] == "end"
            codecs += [codec["name"] for codec in (*shard["codecs"], *shard["index_codecs"])]
            blosc = shard["codecs"][1]["configuration"]
            assert (blosc["cname"], blosc["clevel"], blosc["shuffle"]) == ("zstd", 1, "shuffle")
        assert codecs == [c for c in code(chains[row["codecs"]]) if not c.startswith("1,")], name


def test_scalars_lie_where_the_last_rows_say(store: Path) -> None:
    for name, dims, chunk in (
        ("loss", ["snapshot", "minibatch", "task"], [1, MINIBATCHES, 3]),
        ("iterations", ["snapshot", "minibatch"], [1, MINIBATCHES]),
        ("popart_sigma", ["snapshot", "task"], [1, 3]),
    ):
        array = document(store, name)
        assert (array["dimension_names"], array["chunk_grid"]["configuration"]["chunk_shape"]) == (dims, chunk)


def test_arrays_said_to_be_optional_are_the_optional_ones(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"minibatch_scalars": {}, "snapshot_scalars": {}}
    with create(tmp_path / "bare", 1, slabs=False, stream=None, step=StepAxis(), **nothing):
        pass
    bare = {path.parent.name for path in (tmp_path / "bare").glob("*/zarr.json")}
    (rows,) = tables(ARRAYS)
    assert bare == {name for name, _, row in per_side(rows, "step") if row["present"] == "always"}


def test_array_attributes(store: Path) -> None:
    rows = next(table for table in tables("key type required meaning") if code(table[0]["key"]) == ["units"])
    known = {code(row["key"])[0]: row["required"] == "yes" for row in rows}
    for path in store.glob("*/zarr.json"):
        attributes = document(store, path.parent.name)["attributes"]
        assert set(attributes) <= set(known), path
        assert {key for key, required in known.items() if required} <= set(attributes), path
        has = "coordinates" in attributes
        axis = document(store, path.parent.name)["dimension_names"][0]
        alone = path.parent.name in COORDINATES
        assert has is not alone
        if has:
            expected = "env_steps collect" if axis == "snapshot" else "stream_env_steps"
            assert attributes["coordinates"] == expected and f"`{expected}` for arrays over" in PAGE


def test_a_layout_with_everything_has_every_key() -> None:
    """What may be left out is left out where it has its default, and nothing else is."""
    (rows,) = (table for table in tables("key type required meaning") if code(table[0]["key"]) == ["tasks"])
    scalar = {"lr": schema.ScalarSpec()}
    everything = schema.Layout(
        ("a",), {"t": schema.with_offsets(3)}, 1, scalar, {}, True, None, None, True, True, {"lr": 1}, 1, StepAxis()
    )
    assert set(everything.to_json()) == {code(row["key"])[0] for row in rows}
    assert schema.Layout.from_json(json.loads(json.dumps(everything.to_json()))) == everything
    bare = schema.Layout(("a",), {"t": schema.with_offsets(3)}, 1)
    assert set(bare.to_json()) == {code(row["key"])[0] for row in rows if row["required"] == "yes"}
    assert schema.Layout.from_json(json.loads(json.dumps(bare.to_json()))) == bare


@pytest.mark.parametrize("first", ["schema", "tasks", "dims"])
def test_root_attributes_layout_and_declarations(store: Path, first: str) -> None:
    rows = next(table for table in tables("key type required meaning") if code(table[0]["key"]) == [first])
    attributes = document(store, "")["attributes"]
    layout = attributes["layout"]
    held = {"schema": attributes, "tasks": layout, "dims": layout["minibatch_scalars"]["loss"]}[first]
    assert {code(row["key"])[0] for row in rows if row["required"] == "yes"} <= set(held)
    assert set(held) <= {code(row["key"])[0] for row in rows}
    kinds: dict[str, type | tuple[type, ...]] = {"string": str, "integer": int, "object": dict, "boolean": bool}
    kinds |= {"integer or null": (int, type(None)), "array of strings": list}
    for row in rows:
        if (key := code(row["key"])[0]) not in held:
            continue
        value = held[key]
        assert isinstance(value, kinds[row["type"]]), row["key"]
        assert isinstance(value, bool) == (row["type"] == "boolean"), row["key"]


def test_version_and_lengths_are_the_code_s(store: Path) -> None:
    assert f"**Format name** `{dump_header.SCHEMA}`, **version** {dump_header.SCHEMA_VERSION}." in PAGE
    assert (
        f"always `{dump_header.SCHEMA}`" in PAGE and f"version of this format: {dump_header.SCHEMA_VERSION} |" in PAGE
    )
    assert f"{dump_header.UNPLANNED:,} if `n_planned` is null" in PAGE
    assert "$t = 10^{" + f"{math.log10(schema.GRAM_TOLERANCE):.0f}" + "}$" in PAGE


def test_consolidated_metadata_comes_with_completion_alone(tmp_path: Path, store: Path) -> None:
    assert "consolidated_metadata" in document(store, "")
    writer = create(tmp_path / "open", 1)
    try:
        assert "consolidated_metadata" not in document(tmp_path / "open", "")
    finally:
        writer.abandon()


def test_the_trainer_s_arrays_and_attributes_are_those_of_a_trained_archive() -> None:
    """The archive was made by `toppo train`; {side}_order is of one side alone there."""
    dump = open_dump(ARCHIVE)
    minibatch, snapshot = tables("array dims dtype units meaning")
    layout = dump.source.header.layout
    for rows, declared in ((minibatch, layout.minibatch_scalars), (snapshot, layout.snapshot_scalars)):
        on_page = {name: row for name, _, row in per_side(rows)}
        assert set(on_page) - {"critic_order"} == set(declared)
        for name, spec in declared.items():
            row = on_page[name]
            assert code(row["dims"]) == list(spec.dims), name
            assert [code(row["dtype"])[0], code(row["units"])[0]] == [spec.dtype, spec.units], name
    (attrs,) = (table for table in tables("key type meaning") if code(table[0]["key"]) == ["config"])
    assert {code(row["key"])[0] for row in attrs} == set(dump.attrs)


def test_statuses() -> None:
    (rows,) = tables("value name meaning")
    assert {int(row["value"]): code(row["name"])[0] for row in rows} == {s.value: s.name for s in Status}


def test_archive_objects(store: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    from toppo.dump import export

    (rows,) = tables("object what")
    said = {name for row in rows for name in code(row["object"])}
    made = export(store, tmp_path / "run.h5", slabs=True)
    (arrays,) = tables(ARRAYS)
    on_page = {name for name, _, _ in per_side(arrays) if not name.endswith("-manifest")} | {
        "loss",
        "iterations",
        "order",
        "popart_sigma",
    }
    scales = {"actor_param", "critic_param", "other", "stream_collect", "stream_entry"}
    with h5py.File(made) as file:
        assert set(file) == on_page | scales | {"header", "parameters"}
        assert {"header", "parameters/{side}/name", "shape", "offset"} < said
        assert set(file["parameters/actor"]) == {"name", "shape", "offset"}
        assert [d.label for d in file["actor_grad"].dims] == ["snapshot", "minibatch", "task", "actor_param"]
        assert file["actor_grad"].chunks == (1, 1, 1, WIDTHS["actor"]) and file["actor_grad"].fletcher32
        header = json.loads(file["header"].asstr()[()])
        assert header["array_checksums"] == {}
        (keys,) = (table for table in tables("key type meaning") if code(table[0]["key"]) == ["digests"])
        assert set(header) - set(document(store, "")["attributes"]) == {code(row["key"])[0] for row in keys}
        row = np.ascontiguousarray(file["actor_grad"][0, 1, 2], "<f4").tobytes()
        place = 64 * int(np.ravel_multi_index((0, 1, 2), file["actor_grad"].shape[:3]))
        assert header["digests"]["actor_grad"][place : place + 64] == hashlib.sha256(row).hexdigest()
    with h5py.File(ARCHIVE) as file:
        assert {f"run/{name}" for name in file["run"]} == {name for name in said if name.startswith("run/")}
