"""Backends and network architectures by name, found through entry points and imported on first use.

A package adds a backend with one line of its own metadata, `NAME = "module:SPEC"` in the entry-point group
`seal_toolkit.backends`, where SPEC is a `BackendSpec`. Ours stand in this project's pyproject.toml in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.crash_check import check_crash
from backends.errors import InvalidArtifact, NotAvailable
from backends.plugins import Registry
from backends.precision import check_runs
from backends.profiling import Profiler
from backends.session import Session


@dataclass(frozen=True)
class BackendSpec:
    """A runtime that opens files: everything the toolkit needs to know of it.

    name: as `--backend` takes it. title: as a person reads it. formats: the file formats that it opens. package: the
    runtime's distribution on a package index, whose version goes into results. session: the Session class that opens
    a file.
    requires: names of modules to import, of a backend whose own module imports them late, so that listing the
    backends stays quick; one that is missing makes the backend unavailable.
    rank: of several backends for one format the lowest comes first; the first is the default of that format, and
    ours have ranks below 10.
    profile: measures the operators of a file, called as `profile(path, threads, runs)` in a process of its own.
    can_crash: the runtime is known to end the whole process on some files, so that an unknown file runs once in a
    process of its own before it is opened here.
    precisions: the precisions that it runs; None for every one that a file can have.
    compared: whether `compare` and `bench` run it on every file. A runtime that is only timed beside others is not.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    package: str
    session: type[Session]
    requires: tuple[str, ...] = ()
    rank: int = 100
    profile: Profiler | None = None
    can_crash: bool = False
    precisions: tuple[str, ...] | None = None
    compared: bool = True

    def __post_init__(self) -> None:
        if not self.name or not self.formats:
            raise ValueError(f"backend {self.name!r}: expected a name and at least one file format")


class BackendRegistry(Registry[BackendSpec]):
    """Backends by name; one whose runtime is not installed cannot be loaded."""

    def load(self, name: str) -> BackendSpec:
        """Return the spec of a backend. Raises NotAvailable for an unknown name or a missing package."""
        spec = super().load(name)
        if missing := [module for module in spec.requires if not _is_installed(module)]:
            raise NotAvailable(
                f"backend {name!r} cannot be loaded: no module named {missing[0]!r}; install it with "
                f"`pip install {' '.join(module.replace('_', '-') for module in spec.requires)}`"
            )
        return spec


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


BACKENDS = BackendRegistry("seal_toolkit.backends", "backend")

# Each is called with the config of a torch artifact and returns a torch module.
ARCHITECTURES: Registry[Callable[[dict[str, Any]], Any]] = Registry("seal_toolkit.architectures", "architecture")


def backends_for(file_format: str) -> tuple[BackendSpec, ...]:
    """The installed backends that open files of a format, the default one first. Empty where there is none."""
    found = [spec for spec in BACKENDS.installed() if file_format in spec.formats]
    return tuple(sorted(found, key=lambda spec: (spec.rank, spec.name)))


def compared_backends(artifact: Artifact) -> tuple[BackendSpec, ...]:
    """The installed backends that `compare` and `bench` run a file on, the default one of its format first."""
    return tuple(
        spec
        for spec in backends_for(artifact.format)
        if spec.compared and (spec.precisions is None or artifact.precision in spec.precisions)
    )


def default_backend(file_format: str) -> BackendSpec:
    """The backend that opens files of a format unless another one is named. Raises NotAvailable."""
    found = backends_for(file_format)
    if not found:
        raise NotAvailable(f"no installed backend opens {file_format} files; there is {', '.join(BACKENDS.names)}")
    return found[0]


def find_artifact(bundle: Bundle, role: str, backend: str, precision: str, route: str | None = None) -> Artifact:
    """The file of a role and a precision that a backend opens, in the first of its formats that the bundle has.

    Raises NotAvailable for a backend that is not here, a precision that none of its formats can carry, or where the
    bundle has no such file.
    """
    formats = BACKENDS.load(backend).formats
    there = {(a.role, a.format, a.precision) for a in bundle.artifacts}
    file_format = next((one for one in formats if (role, one, precision) in there), formats[0])
    check_runs(precision, file_format)
    return bundle.find(role, file_format, precision, route)


def open_session(bundle: Bundle, artifact: Artifact, backend: str, threads: int) -> Session:
    """Check an artifact against its hash and open it on a backend with `threads` threads. Close it after use.

    Raises NotAvailable for a backend that is not here, InvalidArtifact for a file that is not right, or that its
    runtime does not survive.
    """
    spec = BACKENDS.load(backend)
    path = bundle.verify(artifact)
    if artifact.format not in spec.formats:
        opens = " and ".join(spec.formats)
        raise InvalidArtifact(
            f"{path}: backend {spec.name!r} opens {opens} files, and this is a {artifact.format} file"
        )
    if spec.can_crash:
        check_crash(path, artifact, spec.session, spec.package, threads)
    return spec.session(path, artifact, threads)
