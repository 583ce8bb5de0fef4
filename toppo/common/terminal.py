"""How both command lines end: an error that a user can cause becomes one line on stderr and an exit code."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from toppo.common.errors import ToppoError

F = TypeVar("F", bound=Callable[..., Any])
_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control, format, surrogate, line and paragraph characters."""
_OPTION = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


class Command(TyperCommand):
    """A command whose help has a section for each panel of options. Every name in it is whole, at any width."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the names of arguments and options with their help. Panels of typer's own would cut long names."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        for title in sorted(sections, key=lambda title: ("Arguments", "Options").count(title) == 0):
            with formatter.section(title):
                formatter.write_dl(sections[title])


class _Program(TyperGroup):
    """The commands of a program, in its help with the whole first paragraph of each."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the name of each command and what it does. Click would cut the text to one line."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, (command.help or "").split("\n\n")[0]) for name, command in self.commands.items()]
            )


class App(typer.Typer):
    """A program with commands.

    Args:
        help: what the program does.
    """

    def __init__(self, help: str) -> None:
        super().__init__(
            cls=_Program,
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
            context_settings={"help_option_names": ["-h", "--help"]},
            help=help,
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """The decorator that adds a function as a command; see `typer.Typer.command`."""
        return super().command(name, **{"cls": Command, **settings})


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
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        print(getattr(error, "message", error))
        return 2
    if hasattr(error, "format_message"):  # an error of typer's own
        message, code = error.format_message(), 2
    elif isinstance(error, ToppoError):
        message, code = with_flags(str(error), flags(app)), error.exit_code
    elif isinstance(error, OSError):
        message, code = str(error), 1
    else:
        raise error
    print(f"error: {printable(message)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """A text on one line that leaves the terminal unchanged: control characters are shown as Python escapes them.

    Also escaped are separators of lines, marks that reverse the direction of writing, and bytes that are no text. All
    of them can stand in the name of a file or of a task.

    >>> printable("dumps/a\\nb")
    'dumps/a\\\\nb'
    """
    return "".join(c if unicodedata.category(c) not in _ESCAPED else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


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
