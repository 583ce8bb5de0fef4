"""One BLAS thread for linear algebra on K x K matrices.

A Cholesky factor of a 50 x 50 matrix takes 10 us on one thread. Waking a second thread costs more than it saves. It
costs up to forty times as much while the threads of another library wait in a busy loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import scipy.linalg  # noqa: F401  (loads scipy's own BLAS, so that _libraries finds it next to numpy's)
from threadpoolctl import LibController, ThreadpoolController


@cache
def _libraries() -> list[LibController]:
    # Finding the loaded libraries takes milliseconds and setting their threads a microsecond. So find them once.
    found: list[LibController] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found


@contextmanager
def single_thread() -> Iterator[None]:
    """A context in which the BLAS of numpy and of scipy runs on one thread. At the end both get their numbers back."""
    threaded = [(library, n) for library in _libraries() if (n := library.get_num_threads()) != 1]
    for library, _ in threaded:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, n in threaded:
            library.set_num_threads(n)
