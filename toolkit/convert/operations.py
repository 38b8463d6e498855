"""Reads the number types in which a file computes its convolutions, matrix products and recurrent layers."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from graphs.onnx.part import read_with_shapes
from graphs.tflite.graph import Graph, Node, Tensor, read_graph
from toolkit.convert.weights import Shares, StoredWeights, shares, stored_weights

_Sizes = tuple[int, ...]


class NumberTypes(NamedTuple):
    """The share of a file's weights, in bytes, and of its operations in each number type, the largest first.

    Both are empty for a file in which there is nothing to count.
    """

    weights: Shares
    operations: Shares


def number_types(path: Path) -> NumberTypes:
    """Return the number types of an ONNX or TFLite file. Weights are not loaded."""
    return counted_types(path)[1]


def counted_types(path: Path) -> tuple[StoredWeights, NumberTypes]:
    """Return the bytes of weights of an ONNX or TFLite file, as `stored_weights` does, and the file's number types.

    A TFLite file is read once for both. Weights are not loaded.
    """
    source = read_graph(path) if path.suffix == ".tflite" else path
    weights, operations = stored_weights(source), computed_operations(source)
    total = operations.total()
    return weights, NumberTypes(shares(weights), tuple((t, n / total) for t, n in operations.most_common() if n))


def computed_operations(source: Path | Graph) -> Counter[str]:
    """Return how many multiply-adds an ONNX file, a TFLite file or its graph computes in each number type.

    Convolutions, matrix products and recurrent layers count, by the type of the activations that they multiply: "int8"
    for 8-bit integers of either sign, also where the runtime quantizes float activations because the weights are
    integers. Where the file does not state the sizes of one of them, each operator counts as one operation.
    """
    if isinstance(source, Path) and source.suffix == ".tflite":
        source = read_graph(source)
    found = list(_of_tflite(source) if isinstance(source, Graph) else _of_onnx(source))
    sized = all(count is not None for _, count in found)
    operations: Counter[str] = Counter()
    for dtype, count in found:
        operations[_SIGNED.get(dtype, dtype)] += count if sized and count is not None else 1
    return operations


_SIGNED = {"uint8": "int8", "uint16": "int16"}
_Operation = tuple[str, int | None]

_Code = schema.BuiltinOperator
# For each operator: the inputs that are multiplied, the activations first, and the number of multiply-adds from their
# sizes x and w and those of the output, y.
_TFLITE: dict[int, tuple[int, int, Callable[[_Sizes, _Sizes, _Sizes], int]]] = {
    _Code.CONV_2D: (0, 1, lambda x, w, y: math.prod(y) * math.prod(w[1:])),
    _Code.DEPTHWISE_CONV_2D: (0, 1, lambda x, w, y: math.prod(y) * math.prod(w[:-1])),
    _Code.TRANSPOSE_CONV: (2, 1, lambda x, w, y: math.prod(x) * math.prod(w[:-1])),
    _Code.CONV_3D: (0, 1, lambda x, w, y: math.prod(y) * math.prod(w[:-1])),
    _Code.CONV_3D_TRANSPOSE: (2, 1, lambda x, w, y: math.prod(x) * math.prod(w[:-1])),
    _Code.FULLY_CONNECTED: (0, 1, lambda x, w, y: math.prod(y) * w[-1]),
    _Code.BATCH_MATMUL: (0, 1, lambda x, w, y: _product(x, y)),
}
_TFLITE_RECURRENT = (
    _Code.UNIDIRECTIONAL_SEQUENCE_LSTM,
    _Code.BIDIRECTIONAL_SEQUENCE_LSTM,
    _Code.UNIDIRECTIONAL_SEQUENCE_RNN,
    _Code.BIDIRECTIONAL_SEQUENCE_RNN,
)


def _product(x: _Sizes, y: _Sizes) -> int:
    """Return the multiply-adds of a matrix product: x is (..., M, K) or transposed, y is (..., M, N)."""
    rows = y[-2] if len(y) > 1 else 1
    return math.prod(y) * (math.prod(x[-2:]) // rows if rows else 0)


def _of_tflite(graph: Graph) -> Iterator[_Operation]:
    for node in graph.nodes:
        code = node.code[0]
        if code in _TFLITE:
            first, second, count = _TFLITE[code]
            x, w, y = node.inputs[first], node.inputs[second], node.outputs[0]
            assert x is not None and w is not None and y is not None  # none of them is optional
            yield _tflite_type(x, w), count(x.shape, w.shape, y.shape)
        elif code in _TFLITE_RECURRENT:
            yield from _tflite_recurrent(node)


def _tflite_type(x: Tensor, w: Tensor) -> str:
    """Return the type of the activations; "int8" for floats that LiteRT quantizes, to multiply them by integers."""
    return "int8" if x.dtype.startswith("float") and w.dtype.startswith("int") else x.dtype


def _tflite_recurrent(node: Node) -> Iterator[_Operation]:
    x = node.inputs[0]
    matrices = [t for t in node.inputs if t is not None and t.payload is not None and len(t.shape) == 2]
    if x is not None and matrices:
        steps = math.prod(x.shape[:-1])
        yield _tflite_type(x, matrices[0]), steps * sum(math.prod(t.shape) for t in matrices)


# For each operator of ONNX and ONNX Runtime: the two inputs that are multiplied, the activations first.
_ONNX_INPUTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger"), (0, 1)),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), (0, 1)),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits"), (0, 1)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm"), (0, 3)),
}
_QUANTIZES_ITSELF = ("DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
# ONNX Runtime replaces these, between DequantizeLinear and QuantizeLinear, by an operator on integers.
_FUSED_BETWEEN = ("Conv", "ConvTranspose")
# These become an operator on integers behind DequantizeLinear, and may give floats.
_FUSED_BEHIND = ("MatMul", "Gemm")
_CLIPPING = ("Relu", "Clip")


def _of_onnx(path: Path) -> Iterator[_Operation]:
    for node in ir.traversal.RecursiveGraphIterator(read_with_shapes(path).graph):
        if node.op_type in _ONNX_INPUTS:
            x, w = (node.inputs[i] for i in _ONNX_INPUTS[node.op_type])
            if x is not None and w is not None:
                yield _onnx_type(node, x, w), _onnx_count(node, x, w)


def _onnx_type(node: ir.Node, x: ir.Value, w: ir.Value) -> str:
    """Return the type in which ONNX Runtime multiplies the activations x."""
    if node.op_type in _QUANTIZES_ITSELF:
        return "int8"
    quantized = _dequantized(x)
    if quantized is not None and _dequantized(w) is not None:
        is_fused = node.op_type in _FUSED_BEHIND or (node.op_type in _FUSED_BETWEEN and _is_quantized(node.outputs[0]))
        if is_fused and quantized.dtype is not None:
            return quantized.dtype.numpy().name
    return "float32" if x.dtype is None else x.dtype.numpy().name


def _dequantized(value: ir.Value) -> ir.Value | None:
    """Return the integers of which a DequantizeLinear makes a value; None for another value."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None


def _is_quantized(value: ir.Value) -> bool:
    """Return whether a QuantizeLinear alone reads a value, or reads it after it was clipped."""
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or value.is_graph_output():
        return False
    return readers[0].op_type == "QuantizeLinear" or (
        readers[0].op_type in _CLIPPING and _is_quantized(readers[0].outputs[0])
    )


def _onnx_count(node: ir.Node, x: ir.Value, w: ir.Value) -> int | None:
    """Return the multiply-adds of an operator, or None where a size is not stated."""
    sizes = _sizes(x, w, node.outputs[0])
    if node.op_type in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"):
        recurrent = node.inputs[2]
        sizes = None if recurrent is None else _sizes(x, w, recurrent)  # of its outputs, any may be missing
        return None if sizes is None else math.prod(sizes[0][:2]) * (math.prod(sizes[1]) + math.prod(sizes[2]))
    if sizes is None:
        return None
    of_x, of_w, of_y = sizes
    if node.op_type == "ConvTranspose":
        return math.prod(of_x) * math.prod(of_w[1:])
    if "Conv" in node.op_type:
        return math.prod(of_y) * math.prod(of_w[1:])
    if len(of_x) == 1:  # a row
        return math.prod(of_y) * of_x[0]
    if len(of_y) < len(of_x):  # by a column
        return math.prod(of_x)
    return _product(of_x, of_y)


def _sizes(*values: ir.Value) -> Sequence[_Sizes] | None:
    """Return the sizes of values, or None if one of them is not known."""
    if any(value.shape is None or not value.shape.is_static() for value in values):
        return None
    return [value.shape.numpy() for value in values if value.shape is not None]
