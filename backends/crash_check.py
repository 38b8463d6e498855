"""Does LiteRT survive a file? On some it ends the whole process, and nothing in Python can catch that.

LiteRT 2.3 calls abort() in some kernels: for int8 tensors without a scale, for one. So a TFLite file runs once in a
process of its own before it is opened here; once for each hash and release of LiteRT, because what was seen to live is
written down in the user's cache folder. Files of `toolkit convert` lived when it compared them, and those that ship in
the project's tests. What is known is by the runtime, the file's tensors and operators: a death that hangs on the values
of an input is not foreseen.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, ToolkitError
from backends.sandbox import environment, how_it_ended, python_module

# Lines "RELEASE SHA256", as those of the cache: the files that ship.
SHIPPED = Path(__file__).with_name("survived.txt")

# Where nothing can be written, each process finds out once.
_seen: set[str] = set()


def check_crash(path: Path, artifact: Artifact, threads: int) -> None:
    """Run a verified file in a process of its own, if it is a TFLite file that is not known to live.

    Raises InvalidArtifact if that process did not come to its end. A file that LiteRT refuses in words has lived.
    """
    if artifact.format != "tflite" or is_known_safe(artifact.sha256):
        return
    done = subprocess.run(
        [*python_module("backends.crash_check"), str(path), str(threads)],
        input=json.dumps(artifact.to_json()),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode > 0 else ""
        raise InvalidArtifact(
            f"{path}: LiteRT {_release()} does not survive it: a process of its own that ran it once "
            f"{how_it_ended(done.returncode)}{said and f': {said}'}; convert it again, or use another file of the "
            "bundle"
        )
    remember_safe(artifact.sha256)


def is_known_safe(sha256: str) -> bool:
    """Whether a file of this hash is known to live on the LiteRT that is installed."""
    line = entry(sha256)
    if line in _seen:
        return True
    for known in (SHIPPED, _cache()):
        if known is not None:
            with suppress(OSError):
                _seen.update(known.read_text(encoding="utf-8", errors="replace").splitlines())
    return line in _seen


def remember_safe(sha256: str) -> None:
    """Write down that a file of this hash has lived. Where that cannot be written, it is known to this process."""
    if is_known_safe(sha256):
        return
    _seen.add(entry(sha256))
    cache = _cache()
    if cache is not None:
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            with cache.open("a", encoding="utf-8") as file:
                file.write(entry(sha256) + "\n")


def entry(sha256: str) -> str:
    """The line that says so of a hash."""
    return f"ai-edge-litert-{_release()} {sha256}"


def _release() -> str:
    # Not from importlib.metadata, which takes longer to import than a file to open.
    import ai_edge_litert

    return str(ai_edge_litert.__version__)


def _cache() -> Path | None:
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(named) if named else Path.home() / ".cache") / "seal-toolkit" / SHIPPED.name
    except RuntimeError:
        return None  # a user without a home


def _run(path: str, threads: str) -> None:
    from backends.litert import TfliteSession

    artifact = Artifact.from_json(json.load(sys.stdin), path)
    feeds = {binding.spec.name: np.ones(binding.spec.shape, binding.spec.dtype) for binding in artifact.inputs}
    with suppress(ToolkitError), TfliteSession(Path(path), artifact, int(threads)) as session:
        session.run(feeds)


if __name__ == "__main__":
    _run(*sys.argv[1:])
