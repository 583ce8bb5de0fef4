"""A machine that has too little of something: one line that says of what."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

from toppo.common.errors import ToppoError
from toppo.training.run.resources import lacking, resources_named

SMALL = [
    *(
        "--benchmark",
        "reach-v3",
        "--env-steps",
        "500",
        "--env-steps-per-epoch",
        "500",
        "--env-steps-per-collect",
        "500",
    ),
    *("--eval-episodes", "1", "--repeats", "1", "--minibatches", "2", "--dump-minibatches", "1", "--hidden", "8"),
    *("--workers", "1", "--device", "cpu"),
]


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more processes"),
        (OSError(errno.EMFILE, "Too many open files"), "no more open files"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory"),
    ],
)
def test_what_is_lacking_is_said(error, lack):
    assert lack in str(lacking(error))
    with pytest.raises(ToppoError, match=f"{lack}.*use fewer `workers`"), resources_named():
        raise error


@pytest.mark.parametrize("make", [lambda: torch.empty(2**58), lambda: np.empty(2**58)])
def test_an_allocation_that_fails_is_recognised(make):
    with pytest.raises(ToppoError, match="not enough memory"), resources_named():
        make()


def test_other_errors_pass():
    for error in (RuntimeError("shapes differ"), OSError(errno.ENOENT, "no such file"), ValueError("x")):
        with pytest.raises(type(error)), resources_named():
            raise error


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_too_few_open_files_are_one_line(tmp_path):
    """Once it was a traceback from deep inside the start of the workers."""
    code = (
        "import resource, sys; from toppo.cli import main\n"
        "import torch, metaworld\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))\n"
        "sys.argv[1:] = ['train', *sys.argv[1:]]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "the system allows this process no more open files" in done.stderr
    assert "go on with `toppo resume dumps/run1`" in done.stderr
