"""What is timed: a file of a bundle, or what somebody would run instead, and the runtime that opens it."""

from dataclasses import dataclass

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import SESSIONS, Registry, open_as
from backends.session import Session

# Runtimes that nothing but a comparison needs.
PEER_SESSIONS = Registry("peer")
PEER_SESSIONS.register("torch.compile", "toolkit.bench.torch_compile:CompiledSession", needs="torch safetensors")
PEER_SESSIONS.register("openvino", "toolkit.bench.openvino:OpenvinoSession", needs="openvino")


@dataclass(frozen=True)
class Candidate:
    """An artifact of `bundle` under a name that a table shows, for a backend of SESSIONS or PEER_SESSIONS."""

    name: str
    bundle: Bundle
    artifact: Artifact
    backend: str

    def open(self, threads: int) -> Session:
        """Check the file against its hash and open it. Raises NotAvailable and InvalidArtifact."""
        return open_as(session_class(self.backend), self.bundle, self.artifact, threads)


def session_class(backend: str) -> type[Session]:
    """The class of a backend's sessions, its runtime imported. Raises NotAvailable."""
    found: type[Session] = (PEER_SESSIONS if backend in PEER_SESSIONS.names else SESSIONS).load(backend)
    return found
