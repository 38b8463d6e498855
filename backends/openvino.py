"""The OpenVINO backend: ONNX files on its CPU plugin, in float32 or in bfloat16, and their operator profile."""

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.artifact import SIZES
from backends.errors import InvalidArtifact
from backends.precision import BF16
from backends.profiling import OperatorTime
from backends.registry import BackendSpec
from backends.session import RuntimeFacts, Session
from backends.tensor import Array, Binding

if TYPE_CHECKING:
    import openvino

_DEVICE = "CPU"
_MESSAGE_CHARACTERS = 300  # the reader of ONNX lists every node that it cannot read


class OpenvinoSession(Session):
    """An ONNX file on OpenVINO's CPU plugin, with the hint that minimizes the latency of one request.

    It computes in float32, except for the integer operators of a quantized file; for an artifact in bf16, in bfloat16.
    """

    def _open(self) -> None:
        try:
            model = _read(self.path)
            self._inputs = self._find("input", model.inputs, self.artifact.inputs)
            self._outputs = self._find("output", model.outputs, self.artifact.outputs)
            self._compiled = _compile(model, self.threads, self.artifact.precision)
        except InvalidArtifact:
            raise
        except Exception as error:  # the runtime's errors have no common base class
            raise InvalidArtifact(f"{self.path}: OpenVINO cannot load it: {_message(error)}") from error

    def _find(self, kind: str, ports: "Iterable[openvino.Output]", bindings: tuple[Binding, ...]) -> dict[str, int]:
        """Return the index of each tensor by its stored name. Raises InvalidArtifact if it is not as the manifest says.

        A port has several names where OpenVINO removed a node between two tensors.
        """
        found = {name: (i, port) for i, port in enumerate(ports) for name in port.get_names()}
        for binding in bindings:
            name, shape = binding.stored.name, binding.stored.shape
            axes = self.artifact.open_axes(binding.spec.name) or (None,) * len(shape)
            sizes = tuple(None if axis else size for axis, size in zip(axes, shape, strict=True))
            wanted = (binding.stored.dtype, sizes)
            if name not in found:
                raise InvalidArtifact(f"{self.path}: {kind} {name!r} of the manifest is not in the file")
            got = _dtype_and_sizes(found[name][1])
            if got != wanted:
                raise InvalidArtifact(f"{self.path}: {kind} {name!r}: the manifest says {wanted}, the file has {got}")
        return {binding.stored.name: found[binding.stored.name][0] for binding in bindings}

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            results = self._compiled({self._inputs[name]: array for name, array in feeds.items()})
            return {name: np.asarray(results[index]) for name, index in self._outputs.items()}
        except Exception as error:  # as in _open
            raise InvalidArtifact(f"{self.path}: OpenVINO failed to run it: {_message(error)}") from error

    def _close(self) -> None:
        del self._compiled

    def describe(self) -> RuntimeFacts:
        """Return {"providers", "inference_precision"}: the devices that run the file, and "f32" or "bf16"."""
        return {
            "providers": list(self._compiled.get_property("EXECUTION_DEVICES")),
            "inference_precision": _inference_precision(self._compiled),
        }


def _read(path: Path) -> "openvino.Model":
    """Read an ONNX file. Other readers would try a file that this one refuses, and print to stderr."""
    from openvino.frontend import FrontEndManager

    reader = FrontEndManager().load_by_framework("onnx")
    return reader.convert(reader.load(path))


def _compile(model: "openvino.Model", threads: int, precision: str, **more: Any) -> "openvino.CompiledModel":
    import openvino

    wanted = "bf16" if precision == BF16.name else "f32"
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": wanted,
        # Products of float activations with 8-bit weights stay in floats.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        # Pinned threads of two sessions would share a core while another one is idle.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(model, _DEVICE, options | more)
    if (got := _inference_precision(compiled)) != wanted:
        raise InvalidArtifact(f"OpenVINO computes in {got} where it was asked for {wanted}")
    return compiled


def _inference_precision(compiled: "openvino.CompiledModel") -> str:
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


def _dtype_and_sizes(port: "openvino.Output") -> tuple[str, tuple[int | None, ...]]:
    """Return the dtype and the shape of a tensor, with None for the size of an open axis."""
    dtype = port.get_element_type().to_dtype()
    return np.dtype(dtype).name, tuple(None if d.is_dynamic else d.get_length() for d in port.get_partial_shape())


def _message(error: Exception) -> str:
    """Return the lines of an error that say what is wrong, without the places in OpenVINO's source that raised it."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    said = [
        line for line in lines if line and not line.startswith(("Exception from ", "Check '", "FrontEnd API failed"))
    ]
    return textwrap.shorten(" ".join(said or filter(None, lines)), _MESSAGE_CHARACTERS, placeholder=" ...")


def _closed(port: "openvino.Output", path: Path) -> list[int]:
    """Return the shape of an input with the sizes that the file's metadata states for its open axes."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    sizes = json.loads({entry.key: entry.value for entry in proto.metadata_props}[SIZES])
    (value,) = [value for value in proto.graph.input if value.name in port.get_names()]
    return [dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim]


def refuses(precision: str) -> str | None:
    """Return the reason why this machine's processor cannot run a precision without files of its own, else None."""
    if precision == BF16.name and "BF16" not in _capabilities():
        return "this processor has no bfloat16 instructions (AVX512-BF16 or AMX-BF16)"
    return None


def _capabilities() -> list[str]:
    import openvino

    return list(openvino.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))


def profile(path: Path, threads: int, runs: int, precision: str) -> tuple[OperatorTime, ...]:
    """Return the operators of a file in running order after OpenVINO's fusions, and their time in `runs` runs on zeros.

    OpenVINO tells means over all runs since the file was opened, in whole microseconds. One more run, the first, packs
    weights and is not counted. Operators that are not executed, such as those fused with others, are left out. Open
    axes have the sizes that the file states for them.
    """
    import openvino

    model = _read(path)
    model.reshape({port: _closed(port, path) for port in model.inputs if port.get_partial_shape().is_dynamic})
    compiled = _compile(model, threads, precision, PERF_COUNT=True)
    request = compiled.create_infer_request()
    feeds = [np.zeros(port.get_shape(), port.get_element_type().to_dtype()) for port in compiled.inputs]
    request.infer(dict(enumerate(feeds)))
    first = request.get_profiling_info()
    for _ in range(runs):
        request.infer(dict(enumerate(feeds)))
    found = []
    for node, before in zip(request.get_profiling_info(), first, strict=True):
        if node.status == openvino.ProfilingInfo.Status.EXECUTED:
            later = ((1 + runs) * node.real_time - before.real_time) / runs
            found.append(OperatorTime(node.node_type, max(0.0, 1e3 * later.total_seconds()), node.node_name))
    return tuple(found)


BACKEND = BackendSpec(
    name="openvino",
    title="OpenVINO",
    formats=("onnx",),
    package="openvino",
    session=OpenvinoSession,
    requires=("openvino",),
    rank=4,
    profile=profile,
    casts=(BF16.name,),
    refuses=refuses,
)
