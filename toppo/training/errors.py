"""How a training run can end early."""

from __future__ import annotations

from toppo.common.errors import ToppoError


class WorkerDied(ToppoError):
    """A process of the run was killed from outside, for example for lack of memory. Another try may succeed."""


class Interrupted(ToppoError):
    """The user or the system stopped the run. Its last checkpoint is intact.

    Attributes:
        signal_number: number of the signal that stopped the run.
        exit_code: what a shell expects after this signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
