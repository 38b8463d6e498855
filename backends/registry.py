"""The registries of backends and of network architectures, and the choice of a backend and a file to open.

A package adds a backend with one line of its metadata, `NAME = "module:SPEC"` in the entry-point group
`seal_toolkit.backends`, where SPEC is a `BackendSpec`. This project's backends are listed in its pyproject.toml.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.crash_check import check_crash
from backends.errors import InvalidArtifact, NotAvailable, NotInstalled
from backends.plugins import Registry, is_installed
from backends.precision import RECIPES, check_runs
from backends.profiling import Profiler
from backends.session import Session


@dataclass(frozen=True)
class BackendSpec:
    """The description of a backend: a runtime that opens files of some formats.

    name: the value of `--backend`. title: the name to display. formats: the file formats that it opens. package: the
    runtime's distribution on a package index, whose version goes into results. session: the Session class that opens
    a file.
    requires: the modules that the backend's own module imports late, so that listing the backends stays quick; without
    one of them the backend cannot be loaded.
    rank: the backend with the lowest rank is the default of a format; this project's backends have ranks below 10.
    profile: the profiler, called in a child process as `profile(path, threads, runs, precision)`; None
    without a profiler.
    can_crash: whether the runtime is known to end the whole process on some files. An unknown file is then run once in
    a child process before it is opened.
    precisions: the precisions of the files that it runs; None for all.
    casts: the precisions without files of their own, such as bf16, in which it runs files of another precision.
    refuses: called with one of `casts`; returns the reason why this machine's processor cannot run it, else None.
    compared: whether `compare` and `bench` run it on every file; False for a runtime that is only timed as a peer.
    Raises ValueError without a name or a format.
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
    casts: tuple[str, ...] = ()
    refuses: Callable[[str], str | None] = lambda precision: None
    compared: bool = True

    def __post_init__(self) -> None:
        if not self.name or not self.formats:
            raise ValueError(f"backend {self.name!r}: expected a name and at least one file format")

    def in_every_precision(self, artifact: Artifact) -> tuple[Artifact, ...]:
        """Return a file once for each precision in which the backend runs it: first its own, then those of casts, also
        those that this machine's processor cannot run.

        The result is empty for a file that the backend does not open or run.
        """
        if artifact.format not in self.formats:
            return ()
        own = self.precisions is None or artifact.precision in self.precisions
        casts = [one for one in self.casts if RECIPES[one].base == artifact.precision]
        return (*([artifact] if own else []), *(replace(artifact, precision=one) for one in casts))

    def runs(self, artifact: Artifact) -> tuple[Artifact, ...]:
        """Return a file once for each precision in which the backend runs it on this machine, its own first."""
        return tuple(
            one
            for one in self.in_every_precision(artifact)
            if one.precision not in self.casts or self.refuses(one.precision) is None
        )

    def check_runs(self, precision: str) -> None:
        """Raise NotAvailable, with the reason, for a precision without files of its own that does not run here."""
        if precision not in RECIPES or RECIPES[precision].base is None:
            return
        if precision not in self.casts:
            raise NotAvailable(f"backend {self.name!r} does not run {precision}: {RECIPES[precision].without_file}")
        if (reason := self.refuses(precision)) is not None:
            raise NotAvailable(
                f"backend {self.name!r} does not run {precision} here: {reason}; {RECIPES[precision].base} works"
            )


class BackendRegistry(Registry[BackendSpec]):
    """The registry of backends. A backend whose runtime is not installed cannot be loaded."""

    def load(self, name: str) -> BackendSpec:
        """Return the spec of a backend. Raises the errors of Registry.load, and NotInstalled without a module that the
        backend requires."""
        spec = super().load(name)
        if missing := [module for module in spec.requires if not is_installed(module)]:
            raise NotInstalled(
                f"backend {name!r} cannot be loaded: no module named {missing[0]!r}; install it with "
                f"`pip install {' '.join(module.replace('_', '-') for module in spec.requires)}`"
            )
        return spec


BACKENDS = BackendRegistry("seal_toolkit.backends", "backend")

# An architecture is a function from the config of a torch artifact to a torch module.
ARCHITECTURES: Registry[Callable[[dict[str, Any]], Any]] = Registry("seal_toolkit.architectures", "architecture")


def backends_for(file_format: str) -> tuple[BackendSpec, ...]:
    """Return the installed backends that open files of a format, the default first; empty without one."""
    found = [spec for spec in BACKENDS.installed() if file_format in spec.formats]
    return tuple(sorted(found, key=lambda spec: (spec.rank, spec.name)))


@dataclass(frozen=True)
class RunTarget:
    """A file on a backend, in the precision of `artifact`: that of the file, or one without files of its own.

    name: unique in a bundle's role: "FILE" on the default backend of the format, else "FILE on BACKEND", followed by
    " in PRECISION" for a precision without files of its own.
    """

    artifact: Artifact
    backend: str
    is_default: bool

    @property
    def name(self) -> str:
        """The name in tables and results."""
        if self.is_default:
            return self.artifact.file
        return target_name(self.artifact, self.backend)


def target_name(artifact: Artifact, backend: str) -> str:
    """Return the name of a file on a backend that is not its format's default, or in a precision without files."""
    has_file = RECIPES[artifact.precision].base is None
    return f"{artifact.file} on {backend}" + ("" if has_file else f" in {artifact.precision}")


def run_targets(artifact: Artifact) -> tuple[RunTarget, ...]:
    """Return a file on every installed backend on which `compare` and `bench` run it, in each precision in which the
    backend runs it; sorted by the backend's rank and name."""
    default = default_backend(artifact.format).name
    return tuple(
        RunTarget(one, spec.name, spec.name == default and one is artifact)
        for spec in backends_for(artifact.format)
        if spec.compared
        for one in spec.runs(artifact)
    )


def default_backend(file_format: str) -> BackendSpec:
    """Return the default backend of a format. Raises NotAvailable if no installed backend opens it."""
    found = backends_for(file_format)
    if not found:
        raise NotAvailable(f"no installed backend opens {file_format} files; there is {', '.join(BACKENDS.names)}")
    return found[0]


def find_artifact(bundle: Bundle, role: str, backend: str, precision: str, route: str | None = None) -> Artifact:
    """Return the file of a role and a precision that a backend opens, in the first of its formats that the bundle has.

    For a precision without files of its own, that is the file of its base, with this precision. Raises NotAvailable if
    the backend cannot be loaded or does not run the precision, its format does not support the precision, or the bundle
    has no such file.
    """
    spec = BACKENDS.load(backend)
    spec.check_runs(precision)
    if precision in RECIPES and (base := RECIPES[precision].base) is not None:
        return replace(find_artifact(bundle, role, backend, base, route), precision=precision)
    formats = spec.formats
    there = {(a.role, a.format, a.precision) for a in bundle.artifacts}
    file_format = next((one for one in formats if (role, one, precision) in there), formats[0])
    check_runs(precision, file_format)
    return bundle.find(role, file_format, precision, route)


def open_session(bundle: Bundle, artifact: Artifact, backend: str, threads: int) -> Session:
    """Check an artifact against its hash and open it on a backend with `threads` threads. The caller closes it.

    Raises NotAvailable if the backend cannot be loaded or does not run the precision here; InvalidArtifact for a file
    that is damaged, has a format that the backend does not open, or crashes its runtime.
    """
    spec = BACKENDS.load(backend)
    spec.check_runs(artifact.precision)
    path = bundle.verify(artifact)
    if artifact.format not in spec.formats:
        opens = " and ".join(spec.formats)
        raise InvalidArtifact(
            f"{path}: backend {spec.name!r} opens {opens} files, and this is a {artifact.format} file"
        )
    if spec.can_crash:
        check_crash(path, artifact, spec.session, spec.package, threads)
    return spec.session(path, artifact, threads)
