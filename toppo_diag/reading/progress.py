"""A progress bar for work that takes some seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], object] | None]:
    """A function of (done, total) that moves a bar on stderr; None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def tracked(what: str, items: Sequence[T]) -> Iterator[T]:
    """The items, one by one, with a bar that moves whenever the next one is asked for."""
    with progress(what) as done:
        for n, item in enumerate(items):
            if done is not None:
                done(n, len(items))
            yield item
