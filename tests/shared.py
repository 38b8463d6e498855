"""Folders that are expensive to fill, such as converted bundles: filled once in a test run, for all of its processes.

They are for reading. A test that changes one copies it; the run fails if a file of one was changed.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

VARIABLE = "SEAL_TESTS_SHARED"


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder of this name in the test run; whoever asks first has it filled by `make`."""
    folder = root() / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = Path(f"{folder}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            Path(f"{folder}.listing").write_text(_listing(unfinished), encoding="utf-8")
            unfinished.rename(folder)
    return folder


def root() -> Path:
    """The folder of this test run; tests/conftest.py makes it and removes it."""
    return Path(os.environ[VARIABLE])


def changed() -> list[str]:
    """The names of the shared folders in which a file was added, removed or written."""
    kept = {path.name.removesuffix(".listing"): path.read_text(encoding="utf-8") for path in root().glob("*.listing")}
    return sorted(name for name, listing in kept.items() if listing != _listing(root() / name))


def _listing(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    states = [(path.relative_to(folder), path.stat()) for path in files]
    return "\n".join(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states)
