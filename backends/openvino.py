"""The OpenVINO backend: ONNX files on its CPU plugin, timed beside the other runtimes."""

from collections.abc import Mapping

import numpy as np
import openvino

from backends.errors import InvalidArtifact, one_line
from backends.registry import BackendSpec
from backends.session import RuntimeFacts, Session
from backends.tensor import Array


class OpenvinoSession(Session):
    """An ONNX file on OpenVINO's CPU plugin in float32, with the hint that minimizes the latency of one request."""

    def _open(self) -> None:
        options = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            self._compiled = openvino.Core().compile_model(self.path, "CPU", options)
        except RuntimeError as error:
            raise InvalidArtifact(f"{self.path}: OpenVINO cannot load it: {one_line(error)}") from error
        self._output_names = [binding.stored.name for binding in self.artifact.outputs]

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            results = self._compiled(dict(feeds))
            return {name: np.asarray(results[name]) for name in self._output_names}
        except (RuntimeError, KeyError) as error:
            raise InvalidArtifact(f"{self.path}: OpenVINO failed to run it: {one_line(error)}") from error

    def _close(self) -> None:
        del self._compiled

    def describe(self) -> RuntimeFacts:
        return {"providers": list(self._compiled.get_property("EXECUTION_DEVICES"))}


BACKEND = BackendSpec(
    name="openvino",
    title="OpenVINO",
    formats=("onnx",),
    package="openvino",
    session=OpenvinoSession,
    rank=4,
    compared=False,
)
