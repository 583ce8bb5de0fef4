"""The documentation site: `make docs` writes it to docs/_build/html, and every warning is an error.

Why these tools: pages are MyST Markdown, which a code forge shows without a build. The reference is read from the
docstrings (autodoc), so each fact about the code stands in one place. Furo is the theme of many tools of this field.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

project = "toppo"
author = "the toppo authors"
copyright = author
try:
    release = metadata.version("toppo")
except metadata.PackageNotFoundError:  # a build from a checkout that is on the path and not installed
    release = "0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    *sorted(path.stem for path in (HERE / "_ext").glob("*.py")),
]
exclude_patterns = ["_build", "_ext", "_generated"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings use single backticks for code.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [(name, "params_style") for name in ("Attributes", "Class attributes", "Options")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "toppo"
html_static_path: list[str] = []
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
