"""Targets of a benchmark: a file of a bundle, or a peer's, and the runtime that opens it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import BACKENDS, SESSIONS, Registry, open_as
from backends.session import Session
from backends.tensor import Array
from toolkit.metrics.samples import signed_samples

if TYPE_CHECKING:
    from toolkit.bench.rounds import Row

# Runtimes that only comparisons need.
PEER_SESSIONS = Registry("peer")

PEER_SESSIONS.register("torch.compile", "backends.torch:CompiledSession", needs="torch safetensors")

PEER_SESSIONS.register("openvino", "backends.openvino:OpenvinoSession", needs="openvino")


@dataclass(frozen=True)
class BenchTarget:
    """An artifact of `bundle` under a name that a table shows, for a backend of SESSIONS or PEER_SESSIONS."""

    name: str
    bundle: Bundle
    artifact: Artifact
    backend: str

    @classmethod
    def of(cls, bundle: Bundle, artifact: Artifact) -> "BenchTarget":
        """Return a file of a bundle, under its own name, for the backend that opens its format."""
        return cls(artifact.file, bundle, artifact, BACKENDS[artifact.format])

    def open(self, threads: int) -> Session:
        """Check the file against its hash and open it. Raises NotAvailable and InvalidArtifact."""
        return open_as(session_class(self.backend), self.bundle, self.artifact, threads)


def session_class(backend: str) -> type[Session]:
    """Import a backend's runtime and return the class of its sessions. Raises NotAvailable."""
    found: type[Session] = (PEER_SESSIONS if backend in PEER_SESSIONS.names else SESSIONS).load(backend)
    return found


def timing_feeds(artifact: Artifact) -> dict[str, Array]:
    """Return seeded inputs: uniform noise in [0, 1) for floats, 0 and 1 for integers. Zeros could take shortcuts."""
    return dict(next(signed_samples(tuple(binding.spec for binding in artifact.inputs))).feeds)


# The package of each backend.
PACKAGES = {
    "ort": "onnxruntime",
    "tflite": "ai-edge-litert",
    "torch": "torch",
    "torch.compile": "torch",
    "openvino": "openvino",
}

_DELEGATE = "DELEGATE"


def in_use(session: Session, backend: str) -> dict[str, Any]:
    """Return the runtime of an open session, its version and threads, and its providers or the parts of its delegate.

    All of it as the runtime itself says it. LiteRT's interpreter uses one delegate by itself, XNNPACK; the name is
    printed to stderr alone, where toolkit.bench.cold reads it.
    """
    from importlib.metadata import version

    described: dict[str, Any] = {
        "runtime": PACKAGES[backend],
        "version": version(PACKAGES[backend]),
        "threads": session.threads,
    }
    opened: Any = session
    if backend == "ort":
        described["providers"] = opened._session.get_providers()
    elif backend == "tflite":
        operators = Counter(detail["op_name"] for detail in opened._interpreter._get_ops_details())
        # The list holds every operator of the file and, after them, the delegate's: one for each part that it took.
        described["delegated_parts"] = operators.pop(_DELEGATE, 0)
        described["delegate"] = "XNNPACK" if described["delegated_parts"] else None
        described["operators"] = operators.total()
    elif backend == "openvino":
        described["providers"] = list(opened._compiled.get_property("EXECUTION_DEVICES"))
    else:
        import torch

        described["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        if backend == "torch.compile":
            described["compiler"] = "inductor"
    return described


def target_row(target: BenchTarget, threads: int) -> "Row":
    """Return the row that opens a target with `threads` threads and runs it on `timing_feeds`."""
    # The memory of a cold start is measured in a process that imports this module: the engine is no part of it.
    from toolkit.bench.rounds import OpenRow, Row

    @contextmanager
    def opened() -> Iterator[OpenRow]:
        with target.open(threads) as session:
            yield OpenRow(partial(session.run, timing_feeds(target.artifact)), in_use(session, target.backend))

    return Row(target.name, opened, target.artifact.bytes, target.artifact.sha256)
