"""Debian's Chromium, driven by Playwright, for tests of the report."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REQUIRED = "TOPPO_NEEDS_BROWSER"
"""Environment variable with which a missing browser is a failure, as in CI."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def missing() -> str | None:
    """Why the browser tests cannot run here; None if they can."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "Playwright is not installed: pip install -e '.[dev]'"
    if executable() is None:
        return "Chromium is not installed: on Debian, apt-get install chromium"
    return None


def executable() -> str | None:
    """The browser's program."""
    return next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


def required() -> bool:
    """Whether a missing browser is a failure."""
    return os.environ.get(REQUIRED, "") not in ("", "0")


@contextmanager
def launched() -> Iterator[Browser]:
    """A fresh browser with a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def picture(run: str, file: str, view: str = "#findings") -> None:
    """Save a picture of a part of a run's report, as in the README."""

    import toppo_diag

    with tempfile.TemporaryDirectory() as scratch, launched() as browser:
        page = toppo_diag.report(run).save(Path(scratch) / "report.html")
        tab = browser.new_page(viewport={"width": 960, "height": 900}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.locator(view).scroll_into_view_if_needed()
        tab.wait_for_selector("html[data-ready=true]")
        tab.locator(view).screenshot(path=file)


if __name__ == "__main__":  # python -m tests.diag.browser figures/data/mean-ln-first.h5 figures/readme/report.png
    picture(*sys.argv[1:])
