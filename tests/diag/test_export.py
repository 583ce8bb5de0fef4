"""`export`: what it says where the archive cannot be made, and what it does not overwrite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import toppo_diag
from tests.diag.test_cli import diag  # noqa: F401 (a fixture)
from toppo_diag.errors import UsageError


def test_an_archive_that_is_there_stays_unless_told(diag, run, tmp_path):  # noqa: F811
    archive = tmp_path / "a.h5"
    archive.write_bytes(b"mine")
    code, _, err = diag("export", run, archive)
    assert (code, "a.h5 exists: give another file, or --overwrite" in err) == (2, True), err
    with pytest.raises(UsageError, match="or `overwrite`"):
        toppo_diag.export(run, archive)
    assert archive.read_bytes() == b"mine"
    assert diag("export", run, archive, "--overwrite")[0] == 0
    assert toppo_diag.verify(archive).ok


@pytest.mark.parametrize("place", ["nosuch/a.h5", "FILE/a.h5"])
def test_a_place_that_cannot_be_written_is_one_line_with_its_name(diag, run, tmp_path, place):  # noqa: F811
    (tmp_path / "FILE").write_text("")
    code, _, err = diag("export", run, place)
    assert (code, err.count("\n"), f"cannot write {place}: " in err) == (1, 1, True), err
    assert "Errno" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
@pytest.mark.parametrize("size", [0, 2_000, 20_000, 60_000, 70_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(run, tmp_path, size):
    """A limit on the size of a file stands for the full disk. HDF5 by itself ends such a process by a crash."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
    code += f"import sys; sys.argv = ['toppo-diag', 'export', {run!r}, 'x.h5', '--slabs']\n"
    code += "from toppo_diag.cli import main; main()"
    root = Path(toppo_diag.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},  # compiled modules have sizes too
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == "error: cannot write x.h5: File too large; give another place\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keepbits", [0, 24, -1, 10**30])
def test_mantissa_bits_out_of_range(run, tmp_path, keepbits):
    with pytest.raises(UsageError, match="`keepbits="):
        toppo_diag.export(run, tmp_path / "a.h5", slabs=True, keepbits=keepbits)
