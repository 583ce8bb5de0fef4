"""The shape of the house: no import circles, whatever the import contracts say of its rooms."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


@pytest.mark.parametrize("package", ["toppo", "toppo_diag"])
def test_no_module_reaches_itself_by_its_imports(package):
    """Imports inside functions and under TYPE_CHECKING count too."""
    graph = grimp.build_graph(package, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))
