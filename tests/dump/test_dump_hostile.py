"""Dumps of strangers: nothing in one runs code, leads out of it, or hangs its reader."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.dump import recordings as run
from toppo.dump import DumpError, DumpWriter, describe, export, open_dump, run_logs, verify
from toppo.dump.header import checksum
from toppo.dump.urls import PROTOCOLS, check_url


@pytest.fixture
def copy(complete: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run1" / "dump.zarr"
    shutil.copytree(complete, path)
    return path


def edit(path: Path, change: dict[str, Any]) -> None:
    """Change some keys of a JSON document."""
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_reading_never_hands_a_file_to_zarr(complete: Path) -> None:
    """Zarr looks up codecs by the names in a file; some of them run what the file says."""
    code = (
        "import sys; from toppo.dump import *; dump = open_dump(sys.argv[1]); dump.dataset().load();"
        "assert verify(dump).ok; print('zarr' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, complete], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_a_root_of_another_format_is_refused(copy: Path) -> None:
    """With `zarr_format` 2 in the root, Zarr would open each array by its `.zarray`, whose filters may be pickle."""
    for change in ({"zarr_format": 2}, {"node_type": "array"}, {"zarr_format": None}):
        sound = (copy / "zarr.json").read_text()
        edit(copy / "zarr.json", change)
        for use in (open_dump, verify, DumpWriter.resume):
            with pytest.raises(DumpError, match=r"not a toppo dump \(zarr\.json is no group of Zarr format 3\)"):
                use(copy)
        (copy / "zarr.json").write_text(sound)


CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"zarr_format": 2}, "its zarr_format is 2, expected 3"),
        ({"node_type": "group"}, 'its node_type is "group", expected "array"'),
        ({"data_type": "int64"}, 'its data_type is "int64", expected "float64"'),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "which no writer of dumps uses"),
        ({"codecs": [*CODECS, {"name": "numcodecs.zlib"}]}, "which no writer of dumps uses"),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}]}, "which no writer"),
        ({"codecs": CODECS[:1]}, "which no writer of dumps uses"),
        ({"codecs": "bytes"}, "which no writer of dumps uses"),
        ({"storage_transformers": [{"name": "x"}]}, "its storage_transformers"),
        ({"shape": [6, 2, 4]}, r"its shape is \[6, 2, 4\], expected \[6, 2, 3\]"),
        ({"shape": [6, 2, "3"]}, "its shape is"),
        ({"chunk_key_encoding": {"name": "v2"}}, "its chunk_key_encoding"),
    ],
)
def test_an_array_that_no_writer_of_dumps_made_is_refused(copy: Path, change: dict[str, Any], problem: str) -> None:
    edit(copy / "loss" / "zarr.json", change)
    for use in (lambda: open_dump(copy).values("loss"), lambda: open_dump(copy)["loss"].load()):
        with pytest.raises(DumpError, match=rf"loss cannot be read \(.*{problem}.*"):
            use()
    assert "loss" in {damage.array for damage in verify(copy).damages}
    assert open_dump(copy).steps.tolist() == [0, 1000, 2000, 3000, 4000, 5000]


def test_a_slab_s_inner_codecs_are_looked_at_too(copy: Path) -> None:
    document = json.loads((copy / "actor_grad" / "zarr.json").read_text())
    document["codecs"][0]["configuration"]["codecs"].insert(1, {"name": "numcodecs.pickle"})
    (copy / "actor_grad" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DumpError, match="which no writer of dumps uses"):
        open_dump(copy).slab_values("actor", 0, 0)


@pytest.mark.parametrize(
    "url",
    [
        "reference::file:///tmp/x.json",
        "reference::memory://x",
        "reference://x",
        "zip://dump.zarr::https://host/x.zip",
        "memory://x::reference://y",
        "dask::s3://bucket",
        "github://owner:repo@main/dump",
        "jar::s3://x",
        "odd://x",
    ],
)
def test_urls_of_other_protocols_are_refused(url: str, tmp_path: Path) -> None:
    for use in (open_dump, verify, run_logs, DumpWriter.resume, lambda path: export(path, tmp_path / "x.h5")):
        with pytest.raises(DumpError, match=r"the protocol '.+' is not allowed; give a URL of s3, ") as caught:
            use(url)
        assert caught.value.allowed == PROTOCOLS


@pytest.mark.parametrize("url", ["s3://bucket/run1", "simplecache::gs://bucket/run1", "memory://x", "https://host/a"])
def test_urls_that_only_fetch_bytes_are_allowed(url: str) -> None:
    check_url(url)


def header(path: Path, change: dict[str, Any], layout: dict[str, Any]) -> None:
    """Change the header of a dump, with its checksum made to match."""
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"] |= change
    root["attributes"]["layout"] |= layout
    root["attributes"]["checksum"] = checksum(root["attributes"])
    (path / "zarr.json").write_text(json.dumps(root))


SCALAR = {"dims": ["task"], "dtype": "f8", "units": "1", "description": ""}


@pytest.mark.parametrize(
    ("change", "layout", "problem"),
    [
        ({"attrs": []}, {}, r"attrs is \[\], expected an object"),
        ({"n_committed": "3"}, {}, 'n_committed is "3", expected a whole number from 0 to 1000000'),
        ({"n_committed": True}, {}, "n_committed is true, expected a whole number"),
        ({"n_committed": 3.0}, {}, "n_committed is 3.0, expected a whole number"),
        ({"n_committed": -1}, {}, "n_committed is -1, expected a whole number"),
        ({"n_committed": 10**9}, {}, "n_committed is 1000000000, expected a whole number"),
        ({"n_committed": 7}, {}, r"\(7, 6\) are committed, and there is room for \(6, 6\)"),
        ({"n_planned": 10**30}, {}, "n_planned is 1000000000000000000000000000000, expected a whole number"),
        ({"stream_committed": None}, {}, "stream_committed is null, expected a whole number"),
        ({"complete": 1}, {}, "complete is 1, expected true or false"),
        ({}, {"minibatches": 10**12}, "layout.minibatches is 1000000000000, expected a whole number from 1 to 1000000"),
        ({}, {"tasks": "abc"}, 'layout.tasks is "abc", expected a list of texts'),
        ({}, {"tasks": ["a", "a", "b"]}, "give one or more distinct names"),
        ({}, {"tasks": [1, 2, 3]}, r"layout.tasks is \[1, 2, 3\], expected a list of texts"),
        ({}, {"sides": []}, r"layout.sides is \[\], expected an object"),
        ({}, {"sides": {}}, "a dump needs at least one side"),
        ({}, {"sides": {"../../x": [["all", [3], 0]]}}, "'../../x' cannot name a side, scalar or step axis"),
        ({}, {"sides": {"a": [["all", [3]]]}}, r"layout.sides.a holds \[.*, expected \[name, shape, offset\]"),
        ({}, {"sides": {"a": [["all", [-3], 0]]}}, r"layout.sides.a holds"),
        ({}, {"sides": {"a": [["all", [2.5], 0]]}}, r"layout.sides.a holds"),
        ({}, {"sides": {"a": [["all", 3, 0]]}}, r"layout.sides.a holds"),
        ({}, {"sides": {"a": [["all", [3], 7]]}}, "its parameters do not lie one after the other"),
        ({}, {"sides": {"a": [["all", [2**40, 2**40], 0]]}}, "its parameters do not lie one after the other"),
        ({}, {"minibatch_scalars": {"../x": SCALAR}}, "'../x' cannot name a side, scalar or step axis"),
        ({}, {"minibatch_scalars": {"x": SCALAR | {"dtype": "O"}}}, "dtype is one of f8, f4, i8, i4, i1"),
        ({}, {"minibatch_scalars": {"x": SCALAR | {"dims": ["task", "task"]}}}, "dims are out of task, task_j, other"),
        ({}, {"minibatch_scalars": {"x": SCALAR | {"units": None}}}, "layout.minibatch_scalars.x.units is null"),
        ({}, {"snapshot_scalars": {"x": {}}}, "layout.snapshot_scalars.x.dims is missing"),
        ({}, {"snapshot_scalars": 3}, "layout.snapshot_scalars is 3, expected an object"),
        ({}, {"slabs": "yes"}, 'layout.slabs is "yes", expected true or false'),
        ({}, {"keepbits": 99}, "layout.keepbits is 99, expected a whole number from 1 to 23"),
        ({}, {"stream_entries": "4"}, 'layout.stream_entries is "4", expected a whole number'),
    ],
)
def test_a_header_that_is_read_is_checked_like_one_that_is_written(
    copy: Path, change: dict[str, Any], layout: dict[str, Any], problem: str
) -> None:
    header(copy, change, layout)
    for use in (open_dump, verify, DumpWriter.resume):
        with pytest.raises(DumpError, match=f"its header is damaged .*{problem}") as caught:
            use(copy)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400 + len(str(copy))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "zarr.json is nested too deep"),
        ('{"attributes": ' + '{"a":' * 5_000 + "1" + "}" * 5_001, "zarr.json is nested too deep"),
        ('{"attributes": ' + "[" * 200 + "]" * 200 + "}", "zarr.json is nested too deep"),
        ('{"attributes": 1e999, "n": Infinity}', "zarr.json is not JSON"),
        ('{"attributes": ' + "1" * 10_000 + "}", "zarr.json is not JSON"),
        ('{"attributes": {"a": "\\ud800"}}', "zarr.json is not JSON"),
        ("[]", "zarr.json is not a JSON object"),
        ('{"attributes": []}', "not a toppo dump"),
        ("", "zarr.json is not JSON"),
    ],
)
def test_a_root_that_is_no_document_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "zarr.json").write_text(text)
    with pytest.raises(DumpError, match=problem) as caught:
        open_dump(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_header_that_counts_what_nobody_wrote_does_not_hang(copy: Path) -> None:
    millions = {"n_committed": 10**6, "n_planned": 10**6, "stream_committed": 10**6, "stream_planned": 10**6}
    header(copy, millions, {"minibatches": 2})
    report = verify(copy)
    assert any("damaged for 100 steps in a row; the rest was not looked at" in d.what for d in report.damages)
    with pytest.raises(DumpError, match="is missing or empty"):
        describe(open_dump(copy))


def test_links_in_place_of_files_are_refused(copy: Path, tmp_path: Path) -> None:
    """An export of such a dump would copy somebody else's file into the archive."""
    secret = tmp_path / "secret"
    secret.write_text("seed = 'the secret of somebody else'")
    (copy.parent / "config.toml").symlink_to(secret)
    with pytest.raises(DumpError, match=r"config\.toml: is a link, where a dump has a file"):
        run_logs(copy)
    with pytest.raises(DumpError, match=r"config\.toml: is a link"):
        export(copy.parent, tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()
    (copy.parent / "config.toml").unlink()

    chunk = copy / "loss" / "c.1.0.0"
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DumpError, match="is a link, where"):
        open_dump(copy).values("loss")
    (copy / "order").rename(tmp_path / "order")
    (copy / "order").symlink_to(tmp_path / "order", target_is_directory=True)
    with pytest.raises(DumpError, match=r"order: is a link, where"):
        open_dump(copy).values("order")
    assert {"loss", "order"} <= {damage.array for damage in verify(copy).damages}

    (copy / "zarr.json").rename(tmp_path / "root")
    (copy / "zarr.json").symlink_to(tmp_path / "root")
    with pytest.raises(DumpError, match=r"zarr\.json: is a link"):
        open_dump(copy)


def test_a_dump_may_itself_be_a_link(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copy, target_is_directory=True)
    run.assert_content(open_dump(tmp_path / "link"))


def test_a_directory_in_place_of_a_chunk_is_damage(copy: Path) -> None:
    for key in ("loss/c.1.0.0", "actor_grad/c.2.1.0.0", "task/c.0"):
        (copy / key).unlink()
        (copy / key).mkdir()
        with pytest.raises(DumpError, match=r"is a directory, where"):
            open_dump(copy).values(key.partition("/")[0])
    assert {damage.array for damage in verify(copy).damages} == {"loss", "actor_grad", "task"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_file_does_not_hang(copy: Path, tmp_path: Path) -> None:
    for key in ("loss/c.1.0.0", "loss/zarr.json", "../progress.jsonl", "zarr.json"):
        (copy / key).unlink(missing_ok=True)
        os.mkfifo(copy / key)
        with pytest.raises(DumpError, match="is a pipe, where"):
            run_logs(copy) if key.startswith("..") else open_dump(copy).values("loss")
    os.mkfifo(tmp_path / "pipe.h5")
    for use in (open_dump, run_logs, verify):
        with pytest.raises(DumpError, match="neither a file nor a directory"):
            use(tmp_path / "pipe.h5")


def test_a_writer_does_not_write_through_a_link(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("somebody else's")
    writer = DumpWriter.resume(copy, snapshots=2, stream=2)
    (copy / "loss" / "c.2.0.0").symlink_to(target)
    with pytest.raises(DumpError, match=r"writing failed \(File exists"):
        run.record_snapshot(writer, 2)
        writer.flush()
    writer.abandon()
    assert target.read_text() == "somebody else's"
