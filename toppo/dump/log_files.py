"""The text files of a run that an archive carries along."""

from __future__ import annotations

from collections.abc import Mapping

from toppo.dump.errors import DumpError

LOGS = ("config.toml", "progress.jsonl", "evaluation.jsonl")
"""Files of a run directory that an archive keeps, byte for byte."""


def as_text(logs: Mapping[str, bytes], where: str) -> dict[str, str]:
    """The content of each log as text, by file name.

    Args:
        logs: the bytes of each log, by file name.
        where: path or URL that the logs were read from.

    Raises:
        DumpError: a log is not UTF-8.
    """
    texts = {}
    for name, data in logs.items():
        try:
            texts[name] = data.decode()
        except UnicodeDecodeError:
            raise DumpError(f"{where}: {name} is damaged, it is no text; restore it from a copy", path=where) from None
    return texts
