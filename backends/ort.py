"""The ONNX Runtime backend: ONNX files on the CPU provider, and their operator profile."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime

from backends.artifact import SIZES
from backends.errors import InvalidArtifact, one_line
from backends.profiling import OperatorTime
from backends.registry import BackendSpec
from backends.session import RuntimeFacts, Session
from backends.tensor import Array, Binding

PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3
# For larger files no memory pattern is planned: its block for all intermediate results adds to those of the first run.
_PLANNED_UP_TO_BYTES = 1 << 28
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OrtSession(Session):
    """An ONNX file on ONNX Runtime, with its own pool of `threads` threads; operators run one after the other."""

    def _open(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = self.artifact.bytes <= _PLANNED_UP_TO_BYTES
        # Idle threads would spin for 40 ms on cores that the next graph of a model needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            # Given a path, the runtime finds external data beside the file and does not hold weights twice. Its own
            # fallback, which prints to stdout and tries again, is off.
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=[PROVIDER], enable_fallback=0
            )
        except Exception as error:  # the runtime's errors have no common base class
            raise InvalidArtifact(f"{self.path}: ONNX Runtime cannot load it: {one_line(error)}") from error
        if self._session.get_providers() != [PROVIDER]:
            raise InvalidArtifact(f"{self.path}: expected {PROVIDER}, got {self._session.get_providers()}")
        self._check("input", self._session.get_inputs(), self.artifact.inputs)
        self._check("output", self._session.get_outputs(), self.artifact.outputs)
        self._output_names = [binding.stored.name for binding in self.artifact.outputs]

    def _check(self, kind: str, found: list[onnxruntime.NodeArg], bindings: tuple[Binding, ...]) -> None:
        axes = {b.stored.name: self.artifact.open_axes(b.spec.name) for b in bindings}
        got = {
            arg.name: (_DTYPES.get(arg.type, arg.type), _without(axes.get(arg.name, ()), arg.shape)) for arg in found
        }
        expected = {b.stored.name: (b.stored.dtype, _without(axes[b.stored.name], b.stored.shape)) for b in bindings}
        if got != expected:
            raise InvalidArtifact(f"{self.path}: {kind}s: the manifest says {expected}, the file has {got}")

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            results = self._session.run(self._output_names, dict(feeds))
        except Exception as error:  # as in _open
            raise InvalidArtifact(f"{self.path}: ONNX Runtime failed to run it: {one_line(error)}") from error
        return dict(zip(self._output_names, results, strict=True))

    def _close(self) -> None:
        del self._session

    def describe(self) -> RuntimeFacts:
        return {"providers": self._session.get_providers()}


def _without(axes: Sequence[str | None], sizes: Sequence[int | str | None]) -> tuple[int | str | None, ...]:
    """Return sizes with the names of open axes in the places of their sizes."""
    if len(axes) != len(sizes):
        return tuple(sizes)
    return tuple(axis or size for axis, size in zip(axes, sizes, strict=True))


_SUFFIX = "_kernel_time"
_PROFILE_DTYPES = {"float": "float32", "double": "float64"}  # other types have numpy's names


def profile(path: Path, threads: int, runs: int, precision: str) -> tuple[OperatorTime, ...]:
    """Return the operators of a file in running order after ONNX Runtime's fusions, with their median time over `runs`
    runs on inputs of zeros. One more run, the first, is not counted. Open axes have the sizes that the file states for
    them. precision: the file has its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        sizes = json.loads(session.get_modelmeta().custom_metadata_map.get(SIZES, "{}"))
        feeds = {given.name: _zeros(given, sizes) for given in session.get_inputs()}
        for _ in range(1 + runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kinds: dict[str, str] = {}
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            kinds[event["name"]] = event["args"]["op_name"]
            times[event["name"]].append(event["dur"] / 1e3)  # microseconds
    return tuple(
        OperatorTime(kind, median(times[name][1:]), name.removesuffix(_SUFFIX)) for name, kind in kinds.items()
    )


def _zeros(given: onnxruntime.NodeArg, sizes: Mapping[str, int]) -> np.ndarray:
    name = given.type.removeprefix("tensor(").removesuffix(")")
    return np.zeros([sizes.get(size, size) for size in given.shape], _PROFILE_DTYPES.get(name, name))


BACKEND = BackendSpec(
    name="ort",
    title="ONNX Runtime",
    formats=("onnx",),
    package="onnxruntime",
    session=OrtSession,
    rank=0,
    profile=profile,
)
