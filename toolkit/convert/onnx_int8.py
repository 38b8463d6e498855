"""An ONNX graph to INT8 for ONNX Runtime: dynamic range, per channel, float32 in and out."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from backends.errors import InvalidArtifact, one_line
from graphs.onnx_file import save

_SMALLEST_CONV_WEIGHT = 4096  # values; below that a scale and a node a weight are not worth what they save


def quantize_onnx(source: Path, target: Path) -> tuple[Path, ...]:
    """Write the INT8 form of a prepared float32 graph. Returns the files: target, then external data.

    Gemm and MatMul compute in int8, on activations quantized as they come. Convolutions keep int8 weights and
    compute in float32: ConvInteger, the runtime's other choice, takes longer than float32 (measured on pocketseal:
    1.3 times as long as this on dense kernels, 3.4 times with depthwise ones). Depthwise weights stay float32.
    Raises InvalidArtifact if the quantizer refuses the graph.
    """
    model = onnx.load(source)
    # Shapes recorded for weights become wrong when the quantizer transposes them, and it then refuses the graph.
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        quantized = Path(folder) / "quantized.onnx"
        logging.disable(logging.WARNING)  # it advises, on the root logger, to run its own simplifier first
        try:
            quantize_dynamic(
                model,
                quantized,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=model.ByteSize() > 1 << 30,
            )
        except (ValueError, RuntimeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise InvalidArtifact(f"{source}: ONNX Runtime cannot quantize it: {one_line(error)}") from error
        finally:
            logging.disable(logging.NOTSET)
        model = onnx.load(quantized)
    _shrink_convolutions(model.graph)
    return save(ir.from_proto(model), target)


def _shrink_convolutions(graph: onnx.GraphProto) -> None:
    """Replace the weight of every large dense Conv by int8, per output channel, and a DequantizeLinear."""
    weights = {initializer.name: initializer for initializer in graph.initializer}
    dequantize = []
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in weights:
            continue
        name = node.input[1]
        values = numpy_helper.to_array(weights[name])
        if values.size < _SMALLEST_CONV_WEIGHT or values.shape[1] == 1:
            continue
        axes = tuple(range(1, values.ndim))
        scale = np.maximum(np.abs(values).max(axis=axes) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        steps = np.rint(values / scale.reshape(-1, *(1 for _ in axes))).astype(np.int8)
        graph.initializer.remove(weights.pop(name))
        graph.initializer.extend(
            [numpy_helper.from_array(steps, f"{name}_quantized"), numpy_helper.from_array(scale, f"{name}_scale")]
        )
        inputs = [f"{name}_quantized", f"{name}_scale"]
        dequantize.append(helper.make_node("DequantizeLinear", inputs, [name], f"{name}_dequantize", axis=0))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*dequantize, *nodes])
