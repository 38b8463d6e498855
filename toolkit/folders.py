"""Folders that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.bundle import MANIFEST
from backends.errors import InvalidInput


@contextmanager
def replacing_folder(folder: Path, known_by: str = MANIFEST, what: str = "bundle") -> Iterator[Path]:
    """Build a folder in one step: yields a new one beside it, and puts that in its place at the end.

    It is for a bundle, or for what else is known by a file of a name. After an error inside the block nothing is left
    and an old folder stays as it was. Raises InvalidInput if there is something else: that is never removed.
    """
    if folder.exists() and not (folder / known_by).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder}: holds something that is not a {what}; name a new folder or an old {what}'s")
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
