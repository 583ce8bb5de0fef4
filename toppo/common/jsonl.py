"""Logs of a run: one JSON object per line. Each line ends with a digest of the log up to and with this line.

A line that was changed, removed or moved is thus found, by whoever reads the log. Logs of earlier versions have no
digests. They are read too, and go on without them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from toppo.common.errors import ToppoError

DIGEST = "digest"
"""Key of the digest: the first 16 hexadecimal digits of the SHA-256 of all lines before and of this line without it."""

_DIGEST_AT_END = re.compile(rb', "digest": "([0-9a-f]{16})"\}')
_MEND = "restore the log from a copy"


class LogState(NamedTuple):
    """How far a log was written, as a checkpoint remembers it."""

    lines: int
    sha256: str
    """Of the bytes of these lines."""


@dataclass(frozen=True)
class Log:
    """The content of a log."""

    lines: tuple[dict[str, Any], ...]
    """Every whole line, without its digest."""
    data: bytes
    """The bytes of these lines."""
    digested: bool
    """Whether the lines have digests. A log without lines counts as one that has."""

    def first(self, count: int) -> bytes:
        """The bytes of the first lines."""
        return b"".join(line + b"\n" for line in self.data.split(b"\n")[:-1][:count])

    def upto(self, collect: int) -> bytes:
        """The bytes of the lines up to a collect."""
        return self.first(sum(line["collect"] <= collect for line in self.lines))

    def state(self) -> LogState:
        """How far the log is written."""
        return LogState(len(self.lines), hashlib.sha256(self.data).hexdigest())

    def begins_with(self, state: LogState) -> bool:
        """Whether the first lines are those that a checkpoint remembers."""
        return len(self.lines) >= state.lines and hashlib.sha256(self.first(state.lines)).hexdigest() == state.sha256


def parse(data: bytes | str, where: object, needs: Iterable[str] = ("collect",)) -> Log:
    """The content of a log, checked line by line. A last line that is only half written is left out.

    Args:
        data: the whole log.
        where: its path, for messages.
        needs: keys that every line must have.

    Raises:
        ToppoError: a line is damaged, or does not follow the one before; the message has its number.
    """
    raw = data.encode() if isinstance(data, str) else data
    *whole, rest = raw.split(b"\n")
    if _is_more_than_half_a_line(rest):
        raise ToppoError(f"{where}, line {len(whole) + 1} is damaged: {_MEND}")
    needs, so_far = tuple(needs), hashlib.sha256()
    lines: list[dict[str, Any]] = []
    digested: bool | None = None
    for number, text in enumerate(whole, start=1):
        line = _object(text)
        if line is None or _wrong(line, needs, lines[-1] if lines else None):
            raise ToppoError(f"{where}, line {number} is damaged: {_MEND}")
        found = _DIGEST_AT_END.search(text[-40:])
        digested = found is not None if digested is None else digested
        with_this = so_far.copy()
        if found is not None:
            with_this.update(text[: -len(found[0])] + b"}")
        if (found is not None) != digested or (found and found[1].decode() != with_this.hexdigest()[:16]):
            raise ToppoError(f"{where}, line {number} does not follow the lines before: one was changed; {_MEND}")
        so_far.update(text + b"\n")
        line.pop(DIGEST, None)
        lines.append(line)
    return Log(tuple(lines), raw[: len(raw) - len(rest)], digested is not False)


class Tail:
    """The end of a log, to which lines are added.

    Args:
        log: what is there.
    """

    def __init__(self, log: Log) -> None:
        self._hash, self._digested = hashlib.sha256(log.data), log.digested
        self.size, self._lines = len(log.data), len(log.lines)

    def added(self, line: Mapping[str, Any]) -> bytes:
        """The bytes of the next line, counted as written."""
        text = json.dumps(line).encode()
        if self._digested:
            with_this = self._hash.copy()
            with_this.update(text)
            text = text[:-1] + f', "{DIGEST}": "{with_this.hexdigest()[:16]}"}}'.encode()
        text += b"\n"
        self._hash.update(text)
        self.size, self._lines = self.size + len(text), self._lines + 1
        return text

    def state(self) -> LogState:
        """How far the log is written."""
        return LogState(self._lines, self._hash.hexdigest())


def _object(text: bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None if there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: nested too deep
        return None
    return value if isinstance(value, dict) else None


def _is_more_than_half_a_line(rest: bytes) -> bool:
    """Whether a line is complete and something follows in place of its end, so that no crash can have cut it."""
    try:
        text = rest.decode(errors="replace")
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return end < len(text)


def _wrong(line: dict[str, Any], needs: tuple[str, ...], before: dict[str, Any] | None) -> bool:
    """Whether a line lacks a key, has a value of a wrong type, or does not come after the line before."""
    if any(key not in line for key in needs):
        return True
    for key in ("collect", "env_steps"):
        if key not in line:
            continue
        value = line[key]
        if type(value) is not int or value < 0:
            return True
        if before is not None and key in before and value <= before[key]:
            return True
    if not _number(line.get("mean_success", 0)):
        return True
    tasks = line.get("tasks", {})
    return not isinstance(tasks, dict) or not all(
        isinstance(values, dict) and all(map(_number, values.values())) for values in tasks.values()
    )


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
