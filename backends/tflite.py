"""TFLite files on LiteRT's interpreter, with its default XNNPACK delegate."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from backends.errors import InvalidArtifact, one_line
from backends.flatbuffer import check_tflite
from backends.session import Session
from backends.tensor import Array, Binding

_LARGEST_SCALE = 1e6


class TfliteSession(Session):
    """Finds tensors by their recorded names; their order and shapes in the file decide nothing."""

    FORMAT = "tflite"

    def _open(self) -> None:
        check_tflite(self.path)
        try:
            # By path: the file is mapped, not read.
            self._interpreter = Interpreter(model_path=str(self.path), num_threads=self.threads)
            self._check_scales()
            self._interpreter.allocate_tensors()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"{self.path}: LiteRT cannot load it: {one_line(error)}") from error
        self._inputs = self._match("input", inputs, self.artifact.inputs)
        self._outputs = self._match("output", outputs, self.artifact.outputs)

    def _check_scales(self) -> None:
        for detail in self._interpreter.get_tensor_details():
            scales = detail["quantization_parameters"]["scales"]
            # The runtime does not check: with scales that make no sense its kernels write outside their memory.
            if not ((scales >= 0) & (scales < _LARGEST_SCALE)).all():
                raise InvalidArtifact(
                    f"{self.path}: tensor {detail['name']!r}: expected scales below {_LARGEST_SCALE:g}"
                )

    def _match(self, kind: str, details: list[dict[str, Any]], bindings: tuple[Binding, ...]) -> dict[str, int]:
        """Stored name -> index of the tensor in the file, after checking that each is what the manifest says."""
        names = sorted(detail["name"] for detail in details)
        if names != sorted(binding.stored.name for binding in bindings):
            expected = sorted(binding.stored.name for binding in bindings)
            raise InvalidArtifact(f"{self.path}: {kind}s: the manifest says {expected}, the file has {names}")
        by_name = {detail["name"]: detail for detail in details}
        for binding in bindings:
            detail = by_name[binding.stored.name]
            scale, zero_point = detail["quantization"]
            # The file keeps scales as float32; a scale of 0 means that the tensor is not quantized.
            wanted_scale = float(np.float32(binding.scale or 0))
            got = (np.dtype(detail["dtype"]).name, tuple(detail["shape"].tolist()), scale, zero_point)
            wanted = (binding.stored.dtype, binding.stored.shape, wanted_scale, binding.zero_point or 0)
            if got != wanted:
                raise InvalidArtifact(
                    f"{self.path}: {kind} {binding.stored.name!r}: the manifest says {wanted}, the file has {got}"
                )
        return {name: detail["index"] for name, detail in by_name.items()}

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            self._hold(feeds)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"{self.path}: LiteRT failed to run it: {one_line(error)}") from error
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def _hold(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        for name, array in feeds.items():
            # Straight into the interpreter's memory, where inputs stay: set_tensor would first make a contiguous copy.
            _fill(self._interpreter.tensor(self._inputs[name])(), array)
        return {}

    def _close(self) -> None:
        del self._interpreter


def _fill(memory: Array, array: Array) -> None:
    if array.ndim == 4 and array.shape[3] <= 4 and not array.flags.c_contiguous:
        # An image seen channels last: plane by plane is four times as fast as numpy's own order.
        for channel in range(array.shape[3]):
            memory[..., channel] = array[..., channel]
    else:
        memory[...] = array
