"""Runners of the graphs of one bundle on one backend: a graph alone, or several, each opened when it first runs."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput
from backends.machine import default_threads
from backends.registry import BACKENDS, find_artifact, open_session
from backends.session import Closing, Session
from backends.tensor import Array


class Runner(Protocol):
    """An object that is run like a Session."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on inputs by name. Returns the outputs by name."""


class Pipeline(Closing, Runner):
    """Several graphs of one bundle, on one backend and in one precision, that run as if they were one graph."""


class Model(Closing):
    """One graph of any bundle, on one backend: `Model.open("build/resnet50").run(x)["logits"]`.

    inputs, outputs: the TensorSpecs of the graph, with names, shapes and dtypes. Close it, or use it as a context
    manager.
    """

    def __init__(self, bundle: Bundle, session: Session) -> None:
        self.bundle = bundle
        self.inputs = tuple(binding.spec for binding in session.artifact.inputs)
        self.outputs = tuple(binding.spec for binding in session.artifact.outputs)
        self._session = session

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path,
        backend: str = "ort",
        precision: str = "fp32",
        threads: int | None = None,
        route: str | None = None,
        role: str | None = None,
    ) -> "Model":
        """Open the file of a role; `role` may be left out for a bundle of one graph.

        Raises InvalidInput if the bundle has several graphs and none is named; NotAvailable if the bundle has no such
        file or the backend is not installed; InvalidArtifact for a file that does not match the manifest.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        roles = list(dict.fromkeys(artifact.role for artifact in opened.artifacts))
        if role is None and len(roles) > 1:
            raise InvalidInput(f"{opened.folder}: has several graphs: give role=, one of {', '.join(roles)}")
        artifact = find_artifact(opened, role or roles[0], backend, precision, route)
        return cls(opened, open_session(opened, artifact, backend, default_threads() if threads is None else threads))

    def run(self, *arrays: Array, **named: Array) -> dict[str, Array]:
        """Run the graph once. Returns the outputs by name.

        arrays: the first inputs, in the graph's order; named: further inputs by name. Raises InvalidInput naming the
        input that is missing, unknown, given twice, or of another shape or dtype.
        """
        names = [spec.name for spec in self.inputs]
        if len(arrays) > len(names):
            raise InvalidInput(f"expected at most {len(names)} inputs ({', '.join(names)}), got {len(arrays)}")
        feeds = dict(zip(names, arrays, strict=False))
        if twice := sorted(feeds.keys() & named.keys()):
            raise InvalidInput(f"input {twice[0]!r}: given twice, by its place and by its name")
        return self._session.run({**feeds, **named})

    def close(self) -> None:
        self._session.close()


class Graphs(Closing):
    """Runs graphs by their roles. Close it, or use it as a context manager.

    timing_ms: for each role, the milliseconds of each run since `forget_times`, without the time to open the graph.
    first_runs: the roles of which the first of these times is of the first run of the graph, which is slower: the
    runtime then plans its memory. watch: called with the role and the inputs by name before each run.
    """

    watch: Callable[[str, Mapping[str, Array]], None]

    def __init__(
        self,
        bundle: Bundle | Path,
        kind: str,
        backend: str = "ort",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        """Raises InvalidArtifact for a bundle of another kind, NotAvailable for an unknown backend."""
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if self.bundle.model["kind"] != kind:
            raise InvalidArtifact(
                f"{self.bundle.folder}: expected a model of kind {kind}, got {self.bundle.model['kind']!r}"
            )
        self.backend = backend
        self.precision = precision
        self.timing_ms: dict[str, list[float]] = {}
        self.first_runs: set[str] = set()
        self.watch = lambda role, feeds: None
        BACKENDS.load(backend)  # an unknown backend is refused before anything is read
        self._threads = default_threads() if threads is None else threads
        self._sessions: dict[str, Session] = {}
        self._held: dict[str, Mapping[str, Array]] = {}
        self._ran: set[str] = set()

    def artifact(self, role: str) -> Artifact:
        """Return the file that runs for a role. Raises NotAvailable if the bundle has none."""
        return find_artifact(self.bundle, role, self.backend, self.precision)

    def run(self, role: str, **feeds: Array) -> dict[str, Array]:
        """Run one graph on inputs by name. Returns its outputs by name.

        Raises NotAvailable for a role without a file, InvalidArtifact for outputs that are not finite.
        """
        session = self._session(role)
        if role not in self._ran:
            self._ran.add(role)
            self.first_runs.add(role)
        self.watch(role, {**self._held.get(role, {}), **feeds})
        start = time.perf_counter()
        outputs = session.run(feeds)
        # Rounded, because a text takes hundreds of runs and --json prints the time of each.
        self.timing_ms.setdefault(role, []).append(round(1e3 * (time.perf_counter() - start), 4))
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise InvalidArtifact(f"{session.path}: gave a {name!r} that is not finite")
        return outputs

    def forget_times(self) -> None:
        """Empty timing_ms and first_runs, as before the next image."""
        self.timing_ms.clear()
        self.first_runs.clear()

    def hold(self, role: str, **feeds: Array) -> None:
        """Set the inputs that all later runs of a graph share (see Session.hold). Without `feeds`, hold no input.

        Arrays that are already held are not copied again.
        """
        held = self._held.get(role, {})
        if held.keys() != feeds.keys() or any(held[name] is not array for name, array in feeds.items()):
            self._session(role).hold(feeds)
            self._held[role] = feeds

    def _session(self, role: str) -> Session:
        if role not in self._sessions:
            self._sessions[role] = open_session(self.bundle, self.artifact(role), self.backend, self._threads)
        return self._sessions[role]

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._held.clear()
        self._ran.clear()
