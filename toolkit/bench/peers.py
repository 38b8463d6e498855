"""Peers: other software that a user could run instead, such as PyTorch, OpenVINO, and unprepared converted files."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress, sha256_of
from backends.crash_check import remember_safe
from backends.errors import InvalidArtifact, NotAvailable, ToolkitError, one_line
from backends.registry import default_backend
from toolkit.bench.together import BenchTarget
from toolkit.bench.unprepared import write_unprepared
from toolkit.inputs.kept import moved_model

if TYPE_CHECKING:
    from toolkit.convert.converter import WorkerResult


EAGER = "PyTorch eager"
COMPILED = "PyTorch compiled"
EXPORTED = "ONNX Runtime, as exported"
OPENVINO = "OpenVINO"
ONNX2TF = "TFLite, as exported"
# The peer's name by precision.
TENSORFLOW = {
    "fp32": "TensorFlow converter",
    "fp16": "TensorFlow converter, FP16",
    "int8": "TensorFlow converter, INT8",
}
PEERS = (EAGER, COMPILED, EXPORTED, OPENVINO, ONNX2TF, *TENSORFLOW.values())

_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Peer:
    """Other software for a role. note: how it was made, or, if `target` is None, why it could not be made."""

    name: str
    role: str
    note: str
    target: BenchTarget | None


def make_peers(
    bundle: Bundle,
    role: str,
    folder: Path,
    source: Path | None = None,
    progress: Progress = lambda step: None,
    names: Sequence[str] = PEERS,
) -> list[Peer]:
    """Make the peers of one role, with their files in the empty `folder`. A peer that cannot be made has the reason.

    PyTorch peers run the module. The others run the graph as it was exported or, for an imported bundle, the graph of
    `source`, the imported file. Only files of the TensorFlow converter may hold the prepared graph: the bundle's own
    files of the route "tf" are used if there are any, and otherwise it gets the prepared graph if it cannot lower the
    exported one. A newly converted file is run once, and its outputs are compared with the graph's.
    """
    makers = _Makers(bundle, role, folder, source, progress)
    found = []
    for name in PEERS:
        if name in names:
            progress(f"{role}: {name}")
            try:
                found.append(makers.make(name))
            except ToolkitError as error:
                found.append(Peer(name, role, one_line(error), None))
            except Exception as error:  # noqa: BLE001  exporters and converters raise nearly any error
                found.append(Peer(name, role, f"{type(error).__name__}: {one_line(error)}", None))
    return found


class _Makers:
    """The maker of the peers of one role. A graph or a file that several peers need is made once."""

    def __init__(self, bundle: Bundle, role: str, folder: Path, source: Path | None, progress: Progress) -> None:
        self._bundle = bundle
        self._role = role
        self._folder = folder
        self._source = source
        self._progress = progress
        self._graph: Artifact | ToolkitError | None = None
        self._by_tensorflow: tuple[str, dict[str, Artifact]] | ToolkitError | None = None

    def make(self, name: str) -> Peer:
        """Return the peer of a name of PEERS. Raises ToolkitError, or an error of the exporter or converter."""
        if name == EAGER:
            return self._peer(name, self._bundle, self._weights(), "torch", "the module, called as it is")
        if name == COMPILED:
            return self._peer(name, self._bundle, self._weights(), "torch.compile", "torch.compile, its defaults")
        if name == OPENVINO and find_spec("openvino") is None:
            raise NotAvailable("not installed: `pip install openvino`")
        if name in (EXPORTED, OPENVINO):
            graph = self._unprepared()
            backend = "ort" if name == EXPORTED else "openvino"
            return self._peer(name, self._own(graph), graph, backend, self._made_of)
        if name == ONNX2TF:
            artifact = self._onnx2tf()
            return self._peer(name, self._own(artifact), artifact, "tflite", f"onnx2tf's default, {self._made_of}")
        return self._tensorflow(name)

    @property
    def _made_of(self) -> str:
        return "the graph as exported" if self._source is None else f"{self._source.name} as it is"

    def _peer(self, name: str, bundle: Bundle, artifact: Artifact, backend: str, note: str) -> Peer:
        return Peer(name, self._role, note, BenchTarget(name, bundle, artifact, backend))

    def _weights(self) -> Artifact:
        if find_spec("torch") is None:
            raise NotAvailable("not installed: `pip install torch safetensors`")
        for artifact in self._bundle.artifacts:
            if (artifact.role, artifact.format) == (self._role, "torch"):
                return artifact
        raise NotAvailable("needs torch weights, and this bundle has none")

    def _unprepared(self) -> Artifact:
        if self._graph is None:
            try:
                self._graph = write_unprepared(self._bundle, self._role, self._folder, self._source)
            except ToolkitError as error:
                self._graph = error
            except ImportError as error:
                self._graph = NotAvailable(f"not installed: {error}")
        if isinstance(self._graph, ToolkitError):
            raise self._graph
        return self._graph

    def _own(self, artifact: Artifact) -> Bundle:
        """Return the folder as a bundle with one more artifact, written so that child processes can open it."""
        manifest = self._folder / "bundle.json"
        artifacts = Bundle.open(self._folder).artifacts if manifest.is_file() else ()
        made = Bundle(
            self._folder, moved_model(self._bundle, self._folder), self._bundle.weights, artifacts
        ).with_artifact(artifact)
        made.write()
        return made

    def _onnx2tf(self) -> Artifact:
        graph = self._unprepared()
        result = self._lower("onnx2tf", self._folder, graph, "lower", models=("graph",))
        return self._bound(result.files["graph"], "fp32", "direct", result.tools)

    def _tensorflow(self, name: str) -> Peer:
        (precision,) = (key for key, value in TENSORFLOW.items() if value == name)
        for artifact in self._bundle.artifacts:
            if (artifact.role, artifact.route, artifact.precision) == (self._role, "tf", precision):
                note = f"{artifact.file}, which `toolkit convert --route tf` made of the prepared graph"
                return self._peer(name, self._bundle, artifact, default_backend("tflite").name, note)
        if self._by_tensorflow is None:
            try:
                self._by_tensorflow = self._lowered_by_tensorflow()
            except ToolkitError as error:
                self._by_tensorflow = error
        if isinstance(self._by_tensorflow, ToolkitError):
            raise self._by_tensorflow
        note, made = self._by_tensorflow
        return self._peer(name, self._own(made[precision]), made[precision], default_backend("tflite").name, note)

    def _lowered_by_tensorflow(self) -> tuple[str, dict[str, Artifact]]:
        """Return a note on how the files were made, and the file by precision."""
        prepared = self._bundle.find(self._role, "onnx", "fp32")
        try:
            note = f"by a SavedModel, {self._made_of}"
            result = self._lower("tensorflow", self._folder, self._unprepared(), "lower-tf")
        except ToolkitError as error:
            note = f"by a SavedModel of the prepared graph: as exported, {one_line(error)}"
            result = self._lower("tensorflow-prepared", self._bundle.folder, prepared, "lower-tf")
        return note, {name: self._bound(file, name, "tf", result.tools) for name, file in result.files.items()}

    def _lower(
        self, name: str, where: Path, graph: Artifact, task: str, models: tuple[str, ...] = ()
    ) -> "WorkerResult":
        from graphs.onnx.file import save
        from toolkit.convert.converter import ConversionFailed, run_worker
        from toolkit.convert.slices import fixed_graph

        work = self._folder / name
        work.mkdir()
        if graph.axes is not None:
            save(fixed_graph(where / graph.file), work / graph.file)
        else:
            for file in graph.files:  # onnx2tf overwrites its input file
                shutil.copyfile(where / file, work / file)
        path, log = str(work / graph.file), work / "log"
        outputs = [binding.spec.name for binding in graph.outputs]
        request: dict[str, object] = {"task": task, "model": path, "outputs": outputs}
        request |= {"models": dict.fromkeys(models, path), "precisions": list(TENSORFLOW)}
        try:
            return run_worker(request, work, log, _TIMEOUT_S, self._progress)
        except ConversionFailed as error:
            # The log is deleted with the folder. onnx2tf names the node at which it stopped.
            stopped = re.findall(r"onnx_op_name: (\S+)", log.read_text(encoding="utf-8", errors="replace"))
            why = f"onnx2tf gave up at {stopped[-1]}" if stopped else str(error).partition("; log: ")[0]
            raise ConversionFailed(why) from error

    def _bound(self, path: Path, precision: str, route: str, tools: dict[str, str]) -> Artifact:
        """Move a converted file beside the graph, run it, compare it with the graph, and return its artifact.

        Raises InvalidArtifact if LiteRT crashes on the file, or if its outputs are not close to the graph's.
        """
        from backends.sandbox import SandboxDied, SandboxProcess
        from backends.tensor import probe
        from toolkit.convert.binding import bind_tflite, check_error

        graph = self._unprepared()
        file = path.replace(self._folder / f"{route}.{precision}.tflite")
        draft = replace(
            graph,
            file=file.name,
            format="tflite",
            precision=precision,
            route=route,
            sha256=sha256_of(file),
            bytes=file.stat().st_size,
            external_files=(),
            tools=tools,
            axes=None,
        )
        feeds = probe(tuple(binding.spec for binding in graph.inputs))
        with BenchTarget(EXPORTED, self._own(graph), graph, "ort").open(threads=1) as session:
            expected = session.run(feeds)
        with SandboxProcess(self._folder / "litert.log", _TIMEOUT_S) as trial:
            try:
                bound = trial.call(bind_tflite, file, draft, feeds, expected)
            except SandboxDied as ended:
                raise InvalidArtifact(f"the process in which LiteRT first ran the file {ended}") from ended
        check_error(file, precision, bound.error)
        remember_safe(default_backend("tflite").package, bound.artifact.sha256)
        return bound.artifact
