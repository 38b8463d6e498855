"""The crash check: run a file once in a child process, because some runtimes end the whole process on some files.

LiteRT 2.3 calls abort() in some kernels, for int8 tensors without a scale for example, and Python cannot catch that. A
file for such a runtime is therefore run in a child process before it is opened in this one. This happens once for each
hash and release: hashes of safe files are kept in the user's cache folder. `toolkit convert` checks every file that it
makes in the same way, and the files that ship with the toolkit are known to be safe. The check finds crashes that
depend on the runtime, tensors and operators, but not crashes that depend on the values of an input.
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

# Safe files that ship with the toolkit, in lines "PACKAGE-RELEASE SHA256" as in the user's cache.
SHIPPED = Path(__file__).with_name("crash_checked.txt")
TIMEOUT_S = 600.0

# Lines of the files known to be safe. Where the cache cannot be written, each process checks a file once.
_seen: set[str] = set()


def check_crash(path: Path, artifact: Artifact, session: type[Session], package: str, threads: int) -> None:
    """Run a verified file once in a child process, unless it is known to be safe for this release of the runtime.

    session: the class that opens the file. package: the distribution of its runtime. Raises InvalidArtifact if the
    child process crashes, hangs, or fails with an unknown error. A file that the runtime refuses with an error is safe.
    """
    if is_known_safe(package, artifact.sha256):
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with SandboxProcess(Path(folder) / "log", TIMEOUT_S) as sandbox:
                sandbox.call(run_once, path, artifact, session, threads)
        except SandboxDied as died:
            raise InvalidArtifact(_refusal(path, package, str(died))) from died
        except Exception as error:  # an error of the runtime that its session does not translate
            raise InvalidArtifact(_refusal(path, package, f"failed: {one_line(error)}")) from error
    remember_safe(package, artifact.sha256)


def run_once(path: Path, artifact: Artifact, session: type[Session], threads: int) -> None:
    """Open a file in this process and run it on inputs of ones. A ToolkitError is ignored: it is not a crash."""
    feeds = {binding.spec.name: np.ones(binding.spec.shape, binding.spec.dtype) for binding in artifact.inputs}
    with suppress(ToolkitError), session(path, artifact, threads) as opened:
        opened.run(feeds)


def is_known_safe(package: str, sha256: str) -> bool:
    """Return whether a file of this hash is known not to crash the installed release of a runtime."""
    line = entry(package, sha256)
    if line in _seen:
        return True
    for known in (SHIPPED, _cache()):
        with suppress(OSError):
            _seen.update(known.read_text(encoding="utf-8", errors="replace").splitlines())
    return line in _seen


def remember_safe(package: str, sha256: str) -> None:
    """Add a file of this hash to the cache of safe files; where it cannot be written, only to this process's memory."""
    if is_known_safe(package, sha256):
        return
    _seen.add(entry(package, sha256))
    with suppress(OSError):
        cache = _cache()
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("a", encoding="utf-8") as file:
            file.write(entry(package, sha256) + "\n")


def entry(package: str, sha256: str) -> str:
    """Return the cache's line for a hash and the installed release of a runtime."""
    return f"{package}-{version(package)} {sha256}"


def _refusal(path: Path, package: str, how: str) -> str:
    return (
        f"{path}: {package} {version(package)} crashes on this file: a child process that ran it once {how}; "
        "convert it again, or use another file of the bundle"
    )


def _cache() -> Path:
    # A cold start measures the memory of a process that imports this module: the import waits until it is needed.
    from platformdirs import user_cache_path

    return user_cache_path("seal-toolkit", appauthor=False) / SHIPPED.name
