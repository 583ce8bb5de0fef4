"""Hold BLAS to one thread around K x K linear algebra.

A Cholesky factor of 50 x 50 takes 10 us on one thread; waking a second one costs more than it saves, up to forty times
where the threads of another library spin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import scipy.linalg  # noqa: F401  (loads scipy's own BLAS, so that _libraries finds it beside numpy's)
from threadpoolctl import LibController, ThreadpoolController


@cache
def _libraries() -> list[LibController]:
    # Finding the loaded libraries takes milliseconds, setting their threads a microsecond: find them once.
    found: list[LibController] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found


@contextmanager
def single_thread() -> Iterator[None]:
    """A context in which numpy's and scipy's BLAS run on one thread; each gets its former number back at the end."""
    threaded = [(library, n) for library in _libraries() if (n := library.get_num_threads()) != 1]
    for library, _ in threaded:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, n in threaded:
            library.set_num_threads(n)
