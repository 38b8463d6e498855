"""Folders that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.bundle import MANIFEST
from backends.errors import InvalidInput


@contextmanager
def replacing_bundle(folder: Path) -> Iterator[Path]:
    """Build a bundle's folder in one step: yields a new folder beside it, and puts that in its place at the end.

    After an error inside the block nothing is left and an old bundle stays as it was.
    Raises InvalidInput if `folder` holds something that is not a bundle: that is never removed.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder}: holds something that is not a bundle; name a new folder or an old bundle's")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        built, old = Path(name) / "new", Path(name) / "old"
        built.mkdir()
        yield built
        if folder.exists():
            folder.rename(old)
        try:
            built.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
