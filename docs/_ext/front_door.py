"""The pages of the two front doors: a table of all public names below the package's docstring.

A front door gives names of several rooms. Each name is described once, on the page of its room, and the table links to
it. The page of the front door describes only the names that have no such page.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from command_line import text
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOMS = {
    "reference/toppo": ("toppo.capture", "toppo.combiners", "toppo.dump"),
    "reference/toppo_diag": ("toppo", "toppo.combiners", "toppo.dump"),
}
"""Page of a front door, and the modules on other pages that describe some of its names."""


def home(page: str, name: str, value: object) -> str | None:
    """The module on another page that describes this object under this name; None if there is none."""
    for room in ROOMS.get(page, ()):
        module = importlib.import_module(room)
        if name in getattr(module, "__all__", ()) and getattr(module, name) is value:
            return room
    return None


class FrontDoor(SphinxDirective):
    """A table of a package's public names; the argument is the package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table: each name, and the first sentence of its docstring."""
        package = self.arguments[0]
        module = importlib.import_module(package)
        group = nodes.tgroup(cols=2)
        group += [nodes.colspec(colwidth=width) for width in (30, 70)]
        body = nodes.tbody()
        for name in sorted(getattr(module, "__all__", ()), key=str.lower):
            value = getattr(module, name)
            if name.startswith("_"):
                continue
            target = f"{home(self.env.docname, name, value) or package}.{name}"
            link = addnodes.pending_xref(
                "", nodes.literal(name, name), refdomain="py", reftype="obj", reftarget=target, refexplicit=True
            )
            first = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
            row = nodes.row()
            row += nodes.entry("", nodes.paragraph("", "", link))
            row += nodes.entry("", text(first))
            body += row
        group += body
        return [nodes.table("", group, classes=["colwidths-given"])]


def skip_what_has_a_page(app: Sphinx, what: str, name: str, value: object, _skip: bool, _options: Any) -> bool | None:
    """Whether a member stays out of a front door's page, because another page describes it."""
    return True if what == "module" and home(app.env.docname, name, value) else None


def add_table(_app: Sphinx, what: str, name: str, _value: object, _options: Any, lines: list[str]) -> None:
    """Put the table of names below the docstring of a front door."""
    if what == "module" and f"reference/{name}" in ROOMS:
        lines += ["", f".. front-door:: {name}", ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry point."""
    app.add_directive("front-door", FrontDoor)
    app.connect("autodoc-process-docstring", add_table, priority=900)
    app.connect("autodoc-skip-member", skip_what_has_a_page)
    return {"parallel_read_safe": True}
