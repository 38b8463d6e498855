"""Atomic writes: a file or a folder appears complete or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.errors import InvalidInput

_SUFFIX = ".part"


@contextmanager
def replacing(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Write a file in one step: yield a temporary path beside `path`, and move it to `path` at the end of the block.

    After an error inside the block the temporary file is removed and an old file stays as it was. With `overwrite`
    false, raises FileExistsError if `path` exists at the end.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        if not overwrite:
            path.touch(exist_ok=False)  # fails if another file exists; replace alone would overwrite it
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder. No other process may be writing there."""
    for temporary in folder.glob(f".*{_SUFFIX}"):
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    # The mask can only be read by setting it. mkstemp makes private files; the finished file gets the usual mode.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def replacing_folder(folder: Path, known_by: str, what: str) -> Iterator[Path]:
    """Build a folder in one step: yield a new folder beside it, and move that to `folder` at the end of the block.

    An old folder is replaced only if it is empty or holds the file `known_by`, such as a bundle's manifest; for other
    contents, raises InvalidInput that calls the expected folder `what`. After an error inside the block the new folder
    is removed and the old one stays as it was.
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
