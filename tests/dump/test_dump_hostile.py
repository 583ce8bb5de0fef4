"""Dumps of strangers: nothing in one runs code, leads out of it, or hangs its reader."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toppo.dump import DumpError, DumpWriter, export, open_dump, run_logs, verify
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
    assert open_dump(copy).env_steps.tolist() == [0, 1000, 2000, 3000, 4000, 5000]


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
