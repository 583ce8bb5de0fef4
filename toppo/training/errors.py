"""How a training run can end early."""

from __future__ import annotations

from toppo.common.errors import ToppoError


class WorkerDied(ToppoError):
    """A process of the run was ended from outside, for example for lack of memory. The same run may go on elsewhere."""


class Interrupted(ToppoError):
    """The user or the system asked the run to stop. Its last checkpoint stands.

    The exit code is the one that a shell expects of a process ended by the signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
