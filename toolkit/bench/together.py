"""Targets of a benchmark, each an artifact and the backend that opens it, and their rows for the timing engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import BACKENDS, default_backend, open_session, run_targets
from backends.session import RuntimeFacts, Session
from backends.tensor import Array
from toolkit.inputs import KEY
from toolkit.metrics.samples import signed_samples

if TYPE_CHECKING:
    from toolkit.bench.rounds import Row


@dataclass(frozen=True)
class BenchTarget:
    """An artifact of a bundle on a backend, under the name that a table shows."""

    name: str
    bundle: Bundle
    artifact: Artifact
    backend: str

    @classmethod
    def of(cls, bundle: Bundle, artifact: Artifact) -> "BenchTarget":
        """Return the target of a bundle's file on the default backend of its format, under the file's name."""
        return cls(artifact.file, bundle, artifact, default_backend(artifact.format).name)

    @classmethod
    def all_of(cls, bundle: Bundle, artifact: Artifact) -> tuple["BenchTarget", ...]:
        """Return a target for every backend and precision in which a file runs, named as in RunTarget."""
        return tuple(cls(one.name, bundle, one.artifact, one.backend) for one in run_targets(artifact))

    @property
    def is_default(self) -> bool:
        """Whether the target has the file's own name, as on its format's default backend."""
        return self.name == self.artifact.file

    def open(self, threads: int) -> Session:
        """Check the file against its hash and open it. Raises NotAvailable and InvalidArtifact as `open_session`."""
        return open_session(self.bundle, self.artifact, self.backend, threads)


def timing_feeds(bundle: Bundle, artifact: Artifact) -> dict[str, Array]:
    """Return the first real inputs of a bundle; without any seeded noise, since zeros could run faster.

    The noise is uniform in [0, 1) for floats, and possible values for integers. Raises InvalidInput for real inputs
    that do not fit.
    """
    specs = tuple(binding.spec for binding in artifact.inputs)
    if KEY not in bundle.model:
        return dict(next(signed_samples(specs)).feeds)
    # Imported late, as in target_row: it imports what reads images.
    from toolkit.inputs.kept import first_inputs

    return first_inputs(bundle, specs)


def in_use(session: Session, backend: str) -> RuntimeFacts:
    """Return the runtime of an open session, its version and threads, and the facts that the session reports."""
    from importlib.metadata import version

    package = BACKENDS.load(backend).package
    return {"runtime": package, "version": version(package), "threads": session.threads, **session.describe()}


def target_row(target: BenchTarget, threads: int) -> "Row":
    """Return the row that opens a target with `threads` threads and runs it on `timing_feeds`."""
    # Imported late: a cold start measures the memory of a process that imports this module.
    from toolkit.bench.rounds import OpenRow, Row

    @contextmanager
    def opened() -> Iterator[OpenRow]:
        with target.open(threads) as session:
            yield OpenRow(
                partial(session.run, timing_feeds(target.bundle, target.artifact)), in_use(session, target.backend)
            )

    return Row(target.name, opened, target.artifact.bytes, target.artifact.sha256)
