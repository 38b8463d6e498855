"""Keeps the finished steps of a conversion, so that an interrupted conversion can continue."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphs
from backends.atomic import remove_leftovers, replacing
from backends.errors import InvalidInput, NotAvailable
from toolkit.environments import lock_text

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PREFIX = ".convert-"


@dataclass
class Steps:
    """A folder with the files of a conversion, and one record for each finished step.

    unfinished: whether a conversion that ends without an error has steps left, so that another one goes on with them.
    """

    folder: Path
    unfinished: bool = False

    def finished(self, name: str) -> dict[str, Any] | None:
        """Return the `content` that `finish` recorded for a step; None if the step is not finished, or one of its files
        is missing or has another size."""
        path = self._record(name)
        if not path.is_file():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = {self.folder / file: size for file, size in record["files"].items()}
        return record["content"] if all(f.is_file() and f.stat().st_size == size for f, size in files.items()) else None

    def finish(self, name: str, files: tuple[Path, ...], content: dict[str, Any]) -> None:
        """Record a step as finished, with its files in the folder and its content (JSON values). Call this last."""
        record = {"content": content, "files": {file.name: file.stat().st_size for file in files}}
        with replacing(self._record(name)) as path:
            path.write_text(json.dumps(record), encoding="utf-8")

    @property
    def any(self) -> bool:
        """Whether any step is finished."""
        return any(self.folder.glob("*.step.json"))

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.step.json"


def kept_bytes(bundle: Path) -> int:
    """Return the disk space in bytes of files that interrupted conversions left in a bundle's folder."""
    # Count blocks, not sizes: a file that is being stitched has holes.
    return sum(path.stat().st_blocks * 512 for path in bundle.glob(f"{_PREFIX}*/*"))


@contextmanager
def kept_steps(bundle: Path, inputs: dict[str, Any], role: str = "graph") -> Iterator[Steps]:
    """Yield the steps of a conversion with these inputs (JSON values), in a hidden folder of the bundle's folder.

    role: of the graph that is converted. Its steps with other inputs, or by other versions of the converter or of this
    code, are removed; those of the bundle's other graphs stay. The folder is removed at the end; after an error, or
    with steps left, it is kept if a step is finished.
    Raises InvalidInput while another conversion works on the bundle, NotAvailable if the disk becomes full.
    """
    folder = bundle / f"{_PREFIX}{role}-{_key(inputs)}"
    with _alone(bundle):
        remove_leftovers(bundle)
        for other in bundle.glob(f"{_PREFIX}*"):
            named = other.name.removeprefix(_PREFIX).rpartition("-")[0]  # "" for a folder of no graph
            if other != folder and named in ("", role) and other.is_dir():
                shutil.rmtree(other)
        folder.mkdir(exist_ok=True)
        steps = Steps(folder)
        try:
            yield steps
        except BaseException as error:
            if not steps.any:
                shutil.rmtree(folder)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise NotAvailable(
                    f"{bundle}: no room on the disk ({error.strerror}): make some, and run it again: it goes on after "
                    "the last finished step"
                ) from error
            raise
        if not (steps.unfinished and steps.any):
            shutil.rmtree(folder)


def _key(inputs: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    digest.update(lock_text().encode())
    for folder in (Path(__file__).parent, Path(graphs.__path__[0])):
        for source in sorted(folder.rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(bundle: Path) -> Iterator[None]:
    handle = os.open(bundle, os.O_RDONLY)
    try:
        # A lock on the folder itself, which the system releases however this process ends.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InvalidInput(f"{bundle}: another conversion works on this bundle; wait for its end") from error
    finally:
        os.close(handle)


def step_of(batch: Sequence[int], precision: str | None = None) -> str:
    """Return the name of the step that makes the float32 slices of a batch, or those of another precision."""
    return f"slices-{batch[0]}-{batch[-1]}" + (f"-{precision}" if precision else "")


def begun_step(precision: str) -> str:
    """Return the name of the step that begins the whole file of a precision, still without weights."""
    return f"begun-{precision}"


def joined_step(precision: str) -> str:
    """Return the name of the step that finishes the whole file of a precision."""
    return f"whole-{precision}"
