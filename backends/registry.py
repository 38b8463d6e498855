"""Names for things that are imported on first use."""

import importlib
from dataclasses import dataclass
from typing import Any

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.crash_check import check_crash
from backends.errors import NotAvailable
from backends.session import Session


@dataclass(frozen=True)
class _Entry:
    target: str
    needs: str


class Registry:
    """name -> "module:attribute". Importing the registry imports none of its modules."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, _Entry] = {}

    def register(self, name: str, target: str, needs: str) -> None:
        """Add a name. `target` is "module:attribute", `needs` the package to install. A duplicate is a ValueError."""
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is registered already, as {self._entries[name].target}")
        if target.count(":") != 1:
            raise ValueError(f"{self._kind} {name!r}: expected module:attribute, got {target!r}")
        self._entries[name] = _Entry(target, needs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def load(self, name: str) -> Any:
        """Import and return what a name stands for. Raises NotAvailable for an unknown name or a missing package."""
        if name not in self._entries:
            raise NotAvailable(f"no {self._kind} named {name!r}; there is {', '.join(self.names) or 'none'}")
        entry = self._entries[name]
        module, attribute = entry.target.split(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise NotAvailable(
                f"{self._kind} {name!r} cannot be loaded: {error}; install it with `pip install {entry.needs}`"
            ) from error


SESSIONS = Registry("backend")
SESSIONS.register("ort", "backends.ort:OrtSession", needs="onnxruntime")
SESSIONS.register("tflite", "backends.litert:TfliteSession", needs="ai-edge-litert")
SESSIONS.register("torch", "backends.torch:TorchSession", needs="torch safetensors")

# By the format of a file: the backend that opens it.
BACKENDS = {"onnx": "ort", "tflite": "tflite", "torch": "torch"}

# Filled by who knows the models: each value is called with the config of an artifact and returns a torch module.
ARCHITECTURES = Registry("architecture")


def open_session(bundle: Bundle, artifact: Artifact, backend: str, threads: int) -> Session:
    """Check an artifact against its hash and open it on a backend with `threads` threads. Close it after use.

    Raises NotAvailable for a backend that is not here, InvalidArtifact for a file that is not right, or that its
    runtime does not survive.
    """
    return open_as(SESSIONS.load(backend), bundle, artifact, threads)


def open_as(session_class: type[Session], bundle: Bundle, artifact: Artifact, threads: int) -> Session:
    """open_session, with the class of a backend that SESSIONS need not hold."""
    path = bundle.verify(artifact)
    check_crash(path, artifact, threads)
    return session_class(path, artifact, threads)
