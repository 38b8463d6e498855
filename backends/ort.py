"""ONNX files on ONNX Runtime's CPU provider."""

from collections.abc import Mapping

import onnxruntime

from backends.errors import InvalidArtifact, one_line
from backends.session import Session
from backends.tensor import Array, Binding

PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3
# Above, a plan of all intermediate results, in one block that comes on top of those of the first run, is too much.
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
    """Runs on `threads` threads of its own pool, one operator after the other, as the runtime does by default."""

    FORMAT = "onnx"

    def _open(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = self.artifact.bytes <= _PLANNED_UP_TO_BYTES
        # Idle threads spin for 40 ms, on cores that the next graph of a model needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            # By path: external data is found beside the file, and weights are not held twice.
            # Without its own fallback, which prints to stdout and tries again.
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=[PROVIDER], enable_fallback=0
            )
        except Exception as error:  # the runtime's errors share no base class of their own
            raise InvalidArtifact(f"{self.path}: ONNX Runtime cannot load it: {one_line(error)}") from error
        if self._session.get_providers() != [PROVIDER]:
            raise InvalidArtifact(f"{self.path}: expected {PROVIDER}, got {self._session.get_providers()}")
        self._check("input", self._session.get_inputs(), self.artifact.inputs)
        self._check("output", self._session.get_outputs(), self.artifact.outputs)
        self._output_names = [binding.stored.name for binding in self.artifact.outputs]

    def _check(self, kind: str, found: list[onnxruntime.NodeArg], bindings: tuple[Binding, ...]) -> None:
        got = {arg.name: (_DTYPES.get(arg.type, arg.type), tuple(arg.shape)) for arg in found}
        expected = {binding.stored.name: (binding.stored.dtype, binding.stored.shape) for binding in bindings}
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
