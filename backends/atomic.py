"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.errors import InvalidInput

_SUFFIX = ".part"


@contextmanager
def replacing(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Write a file in one step: yields a temporary path beside `path`, and moves it there at the end.

    After an error inside the block nothing is left and an old file stays as it was. With `overwrite` false the
    move fails with FileExistsError if `path` has come to exist.
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
            path.touch(exist_ok=False)  # takes the name, or fails: replace alone would not notice another file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing in a folder in which nobody else is."""
    for temporary in folder.glob(f".*{_SUFFIX}"):
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    # The only way to read the mask is to set it. mkstemp makes private files; ours are like any other.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def replacing_folder(folder: Path, known_by: str, what: str) -> Iterator[Path]:
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
