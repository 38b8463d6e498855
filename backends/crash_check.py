"""The crash check: does a runtime live through one run of a file? Some runtimes end the whole process on some files.

LiteRT 2.3 calls abort() in some kernels, for int8 tensors without a scale for example, and nothing in Python can catch
that. So a file for such a runtime runs once in a process of its own before it is opened here: once for each hash and
release, because files that lived are written down in the user's cache folder. `toolkit convert` runs every file that
it makes in the same way, and the files that ship with the toolkit are known from the start. The check covers the
runtime and the file's tensors and operators; a crash that depends on the values of an input is not foreseen.
"""

import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, ToolkitError, one_line
from backends.sandbox import SandboxDied, SandboxProcess
from backends.session import Session

# Lines "PACKAGE-RELEASE SHA256", like those of the user's cache: the files that ship.
SHIPPED = Path(__file__).with_name("crash_checked.txt")
TIMEOUT_S = 600.0

# Known to this process; where the cache cannot be written, each process finds out once.
_seen: set[str] = set()


def check_crash(path: Path, artifact: Artifact, session: type[Session], package: str, threads: int) -> None:
    """Run a verified file once in a process of its own, unless it is known to be safe for this release.

    session: the class that opens it. package: the distribution of its runtime. Raises InvalidArtifact if that process
    did not live to its end. A file that the runtime refuses with an error is safe.
    """
    if is_known_safe(package, artifact.sha256):
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with SandboxProcess(Path(folder) / "log", TIMEOUT_S) as sandbox:
                sandbox.call(run_once, path, artifact, session, threads)
        except SandboxDied as died:
            raise InvalidArtifact(_refusal(path, package, str(died))) from died
        except Exception as error:  # an error of the runtime that its session does not know
            raise InvalidArtifact(_refusal(path, package, f"failed: {one_line(error)}")) from error
    remember_safe(package, artifact.sha256)


def run_once(path: Path, artifact: Artifact, session: type[Session], threads: int) -> None:
    """Open a file and run it on ones, in this process. Errors that a person would be told are no crash."""
    feeds = {binding.spec.name: np.ones(binding.spec.shape, binding.spec.dtype) for binding in artifact.inputs}
    with suppress(ToolkitError), session(path, artifact, threads) as opened:
        opened.run(feeds)


def is_known_safe(package: str, sha256: str) -> bool:
    """Whether a file of this hash is known to live on the installed release of a runtime."""
    line = entry(package, sha256)
    if line in _seen:
        return True
    for known in (SHIPPED, _cache()):
        with suppress(OSError):
            _seen.update(known.read_text(encoding="utf-8", errors="replace").splitlines())
    return line in _seen


def remember_safe(package: str, sha256: str) -> None:
    """Write down that a file of this hash has lived. Where the cache cannot be written, this process remembers."""
    if is_known_safe(package, sha256):
        return
    _seen.add(entry(package, sha256))
    with suppress(OSError):
        cache = _cache()
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("a", encoding="utf-8") as file:
            file.write(entry(package, sha256) + "\n")


def entry(package: str, sha256: str) -> str:
    """The line of the cache for a hash and the installed release of a runtime."""
    return f"{package}-{version(package)} {sha256}"


def _refusal(path: Path, package: str, how: str) -> str:
    return (
        f"{path}: {package} {version(package)} does not survive it: a process of its own that ran it once {how}; "
        "convert it again, or use another file of the bundle"
    )


def _cache() -> Path:
    # A cold start measures the memory of a process that imports this module: the import waits until it is needed.
    from platformdirs import user_cache_path

    return user_cache_path("seal-toolkit", appauthor=False) / SHIPPED.name
