"""How both command lines end: an error that a user can cause becomes one line on stderr and an exit code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import typer

from toppo.common.errors import ToppoError

_OPTION = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


def run(app: typer.Typer) -> None:
    """Run a command line and end the process with its exit code.

    Exit codes: 0; 1 for a failed run or check; 2 for wrong usage; 128 + the signal's number for a run that a signal
    stopped. An error that no user can cause keeps its traceback.
    """
    try:
        # Outside its standalone mode, typer returns the code of an Exit. It also answers Ctrl-C with an exit code.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        sys.exit(report(error, app))


def report(error: Exception, app: typer.Typer) -> int:
    """Print an error as one line on stderr.

    Args:
        error: what was raised.
        app: the command line whose flags replace the Python names in the message.

    Returns:
        The exit code.

    Raises:
        Exception: `error` itself, where no user can have caused it.
    """
    if hasattr(error, "format_message"):  # an error of typer's own
        message, code = error.format_message(), 2
    elif isinstance(error, ToppoError):
        message, code = with_flags(str(error), flags(app)), error.exit_code
    elif isinstance(error, OSError):
        message, code = str(error), 1
    else:
        raise error
    if message:  # typer has none where it showed the help in place of a command
        print(f"error: {message}", file=sys.stderr)
    return code


def flags(app: typer.Typer) -> dict[str, str]:
    """Every option of every command of an app: its name in Python, and its flag."""
    return dict(_flags(typer.main.get_command(app)))


def _flags(command: Any) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        if parameter.name and parameter.opts and parameter.opts[0].startswith("-"):
            yield parameter.name, max(parameter.opts, key=len)
    for sub in getattr(command, "commands", {}).values():
        yield from _flags(sub)


def with_flags(message: str, known: Mapping[str, str]) -> str:
    """A library's message in the words of the command line: `dump_every=0` becomes --dump-every 0.

    Args:
        message: a message with options in backticks, as `toppo.common.errors` describes.
        known: the flag of each name in Python. Other names are not changed.
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in known:
            return match[0]
        return known[name] if value is None else f"{known[name]} {value}"

    return _OPTION.sub(flag, message)


def version_option(program: str) -> Any:
    """The annotation of a `--version` option, which prints the program's name and version and ends."""

    def show(asked: bool) -> None:
        if asked:
            print(f"{program} {version('toppo')}")
            raise typer.Exit

    return typer.Option("--version", help="Show the version and exit.", callback=show, is_eager=True)
