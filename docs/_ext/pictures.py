"""Sphinx extension: makes the pictures of the instrument pages before the pages are read.

The pictures come from the archives under figures/data, by the same command that a reader would type, so that a page
cannot show what the code no longer draws. They land in docs/_generated, which git ignores. A build makes them again
only when the manifest, an archive or the toolkit has changed. `python docs/_ext/pictures.py` makes them without Sphinx.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

GENERATED = "_generated"
_TOPPO_DIAG = "from toppo_diag.cli import main; main()"  # a docs environment may lack the installed script


def make_pictures(docs: Path) -> bool:
    """Whether the pictures had to be made; False where those of the last build still hold.

    Args:
        docs: the directory of the pages.

    Raises:
        RuntimeError: the command failed; the message is what it printed.
    """
    root, out = docs.parent, docs / GENERATED
    manifest = docs / "instruments" / "pictures.toml"
    stamp = out / "fingerprint"
    fingerprint = _fingerprint([manifest, *_inputs(root)])
    if stamp.is_file() and stamp.read_text() == fingerprint:
        return False
    out.mkdir(exist_ok=True)
    (out / ".gitignore").write_text("*\n")
    command = [sys.executable, "-c", _TOPPO_DIAG, "figures", str(manifest), "--format", "png"]
    # in the root, so that the packages of this checkout are the ones that draw
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the pictures of the instrument pages could not be made:\n{done.stdout}{done.stderr}")
    stamp.write_text(fingerprint)
    return True


def _inputs(root: Path) -> Iterator[Path]:
    """Everything the pictures depend on, except installed libraries."""
    yield from sorted((root / "figures" / "data").glob("*.h5"))
    yield from sorted((root / "figures" / "published").glob("*.csv"))
    for package in ("toppo_diag", "toppo/combiners", "toppo/dump"):
        yield from sorted((root / package).rglob("*.py"))


def _fingerprint(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def setup(app: Sphinx) -> dict[str, Any]:
    """The hooks of this extension, as Sphinx asks for them."""
    app.connect("builder-inited", lambda app: make_pictures(Path(app.srcdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    print("made" if make_pictures(Path(__file__).resolve().parent.parent) else "up to date")
