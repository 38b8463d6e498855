"""Sessions: the one way to run an artifact, whatever runtime is behind it."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import Array


class Closing(ABC):
    """An object that holds a runtime's memory until it is closed. As a context manager it closes at the end."""

    @abstractmethod
    def close(self) -> None:
        """Free the runtime's memory. Closing twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Session(Closing):
    """An opened artifact.

    run() validates and is the same for every backend; a backend implements _open, _run and _close, and sees the file's
    own tensors alone. Threads may share a session: its runs happen one after the other. Sessions are independent of
    each other.
    """

    @final
    def __init__(self, path: Path, artifact: Artifact, threads: int) -> None:
        """Open `path`, already verified. Raises InvalidArtifact if the runtime cannot load it."""
        if threads < 1:
            raise InvalidInput(f"threads: expected at least 1, got {threads}")
        self.path = path
        self.artifact = artifact
        self.threads = threads
        self._lock = threading.Lock()
        self._closed = False
        self._held: frozenset[str] = frozenset()
        self._handed: Mapping[str, Array] = {}
        self._open()

    @final
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        feeds maps each input name of artifact.inputs that is not held to an array that matches its spec exactly.
        Returns name -> new C-contiguous array for every output spec. Raises InvalidInput before the runtime sees
        a wrong name, shape, dtype, NaN or infinity, and after close.
        """
        expected = {binding.spec.name for binding in self.artifact.inputs} - self._held
        if set(feeds) != expected:
            raise InvalidInput(f"{self.path.name}: expected inputs {sorted(expected)}, got {sorted(map(str, feeds))}")
        stored = self._stored(feeds)
        with self._lock:
            self._check_open()
            results = self._run({**self._handed, **stored})
        outputs = {}
        for binding in self.artifact.outputs:
            array = results[binding.stored.name]
            if array.shape != binding.stored.shape or array.dtype != binding.stored.dtype:
                raise InvalidArtifact(
                    f"{self.path}: output {binding.stored.name!r}: the manifest says {binding.stored.dtype} "
                    f"{binding.stored.shape}, the file gave {array.dtype} {array.shape}"
                )
            outputs[binding.spec.name] = binding.from_stored(array)
        return outputs

    @final
    def hold(self, feeds: Mapping[str, Array]) -> None:
        """Hold some inputs, by name, for all later runs, which are then given only the other inputs.

        An input that many runs share is then checked and copied once. The arrays must not change meanwhile. Inputs that
        were held before are released. Raises InvalidInput as run does.
        """
        names = {binding.spec.name for binding in self.artifact.inputs}
        if not set(feeds) <= names:
            raise InvalidInput(f"{self.path.name}: expected some of {sorted(names)}, got {sorted(map(str, feeds))}")
        stored = self._stored(feeds)
        with self._lock:
            self._check_open()
            self._held, self._handed = frozenset(feeds), self._hold(stored)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInput(f"{self.path.name}: the session is closed; open a new one")

    def _stored(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Check inputs, and return them by the file's names and in its form."""
        return {
            binding.stored.name: binding.to_stored(binding.spec.validate(feeds[binding.spec.name]))
            for binding in self.artifact.inputs
            if binding.spec.name in feeds
        }

    @final
    def close(self) -> None:
        """Free the runtime's memory. Closing twice does no harm."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def describe(self) -> dict[str, Any]:
        """Facts that the runtime itself tells of an opened file, as JSON values: its providers, its delegates."""
        return {}

    @abstractmethod
    def _open(self) -> None:
        """Load self.path and check its signature against self.artifact. Raises InvalidArtifact."""

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run on the file's own tensors: stored name -> array of the stored shape and dtype, perhaps not contiguous.

        Returns stored name -> array, which no later run overwrites.
        """

    def _hold(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Keep inputs for all later runs. Returns the inputs that _run must still be given each time."""
        return feeds

    @abstractmethod
    def _close(self) -> None:
        """Release the runtime's memory."""
