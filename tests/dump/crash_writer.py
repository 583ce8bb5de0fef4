"""A process that forks writers to be killed. It imports once; for each line of stdin, one child writes the run.

A line is JSON: path, snapshots, `event` (the child kills itself before its n-th operation on the store's files, having
torn the file if that was a write) or null, `delay` (seconds after which it is killed) or null. Prints the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 - imported before the fork, to pay for it once
import numcodecs  # noqa: F401
import zarr.storage  # noqa: F401

from tests.dump import recordings as run
from toppo.common import files
from toppo.dump import DumpWriter

_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def write(path: Path, snapshots: int) -> None:
    """Begin or go on with the run, and end it."""
    files.fsync = lambda path: None  # only a power cut could tell the difference
    writer = DumpWriter.resume(path) if path.exists() else run.create(path, snapshots)
    streamed = writer.stream_committed
    for snapshot in range(writer.n_committed, snapshots):
        run.record_snapshot(writer, snapshot, stream=snapshot >= streamed)
    writer.close()


def die_at(event: int, store: Path) -> None:
    """Have this process killed (SIGKILL) before the operation with number `event` on a file of the store."""
    seen = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name not in _OPERATIONS or not str(arguments[0]).startswith(str(store)):
            return
        seen += 1
        if seen == event:
            if name == "open" and set("wx") & set(str(arguments[1])):
                os.write(os.open(arguments[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), b'{"torn')
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        order = json.loads(line)
        path = Path(order["path"])
        child = os.fork()
        if child == 0:
            if order["event"] is not None:
                die_at(order["event"], path)
            write(path, order["snapshots"])
            os._exit(0)
        if order["delay"] is not None:
            time.sleep(order["delay"])
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
