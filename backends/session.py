"""Sessions: the interface that runs an artifact on any backend."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, final

import numpy as np

from backends.artifact import ANY_SIZE, FOUND, Artifact
from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import Array

# Facts about an open session as JSON values, such as "providers", "delegate" and "delegated_parts". In a result,
# "runtime", "version" and "threads" are among them.
RuntimeFacts = dict[str, str | int | list[str] | None]


class Closing(ABC):
    """An object that holds a runtime's memory until it is closed; a context manager that closes at its end."""

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
    """An artifact opened on a backend.

    run() validates inputs and is the same for every backend. Axes that the artifact calls open take any size. A backend
    implements _open, _run and _close, which handle tensors in the file's stored form. Threads may share a session: its
    runs happen one after the other.
    """

    @final
    def __init__(self, path: Path, artifact: Artifact, threads: int) -> None:
        """Open `path`, which is already verified.

        Raises InvalidArtifact if the runtime cannot load it, InvalidInput for fewer than 1 thread.
        """
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
        """Run the artifact once and return a new C-contiguous array for each output name.

        feeds: for each input name of artifact.inputs that is not held, an array of exactly its spec's dtype and shape,
        but for open axes.
        Raises InvalidInput for a wrong name, shape or dtype, for NaN or infinity, and for a closed session;
        InvalidArtifact if the runtime fails or an output differs from the manifest.
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
            shape = self._shape(binding.stored.shape, binding.spec.name, array, {})
            if array.shape != shape or array.dtype != binding.stored.dtype:
                raise InvalidArtifact(
                    f"{self.path}: output {binding.stored.name!r}: the manifest says {binding.stored.dtype} "
                    f"{binding.stored.shape}, the file gave {array.dtype} {array.shape}"
                )
            outputs[binding.spec.name] = binding.from_stored(array)
        return outputs

    @final
    def hold(self, feeds: Mapping[str, Array]) -> None:
        """Hold some inputs for all later runs, which then take only the other inputs.

        A held input is checked and copied once for many runs. The arrays must not change while they are held. Inputs
        held before are released. Raises InvalidInput as `run` does.
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
        """Check inputs and return them in stored form, by their stored names."""
        stored, sizes = {}, dict[str, int]()
        for binding in self.artifact.inputs:
            if binding.spec.name in feeds:
                array = feeds[binding.spec.name]
                shape = self._shape(binding.spec.shape, binding.spec.name, array, sizes)
                is_own = shape == binding.spec.shape or 0 in shape
                spec = binding.spec if is_own else replace(binding.spec, shape=shape)
                stored[binding.stored.name] = binding.to_stored(spec.validate(array))
        return stored

    def _shape(self, shape: tuple[int, ...], name: str, array: Array, sizes: dict[str, int]) -> tuple[int, ...]:
        """Return a shape with the sizes of an array on the open axes of the tensor `name`, if it has as many axes.

        sizes: of the axes by name, to which those of the array are added; an axis has the size that is there already.
        """
        axes = self.artifact.open_axes(name)
        if not axes or np.ndim(array) != len(axes):
            return shape
        return tuple(
            size if axis is None else got if axis in (ANY_SIZE, FOUND) else sizes.setdefault(axis, got)
            for axis, size, got in zip(axes, shape, np.shape(array), strict=True)
        )

    @final
    def close(self) -> None:
        """Free the runtime's memory. Closing twice does no harm."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def describe(self) -> RuntimeFacts:
        """Return facts that the runtime reports about the opened file: its providers, its delegates."""
        return {}

    @abstractmethod
    def _open(self) -> None:
        """Load self.path and check its signature against self.artifact. Raises InvalidArtifact."""

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run on inputs by stored name, of stored shape and dtype, perhaps not contiguous.

        Returns outputs by stored name, in arrays that later runs do not overwrite.
        """

    def _hold(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Keep inputs for all later runs. Returns those that must still be passed to each _run: here, all of them."""
        return feeds

    @abstractmethod
    def _close(self) -> None:
        """Release the runtime's memory."""
