"""Rewrites large fully connected layers as products that read their weights directly from the mapped file.

XNNPACK copies the weights of a fully connected layer in its own order, as float32 whatever the file holds, so that
memory holds a large model twice. Of a matrix product it copies the second operand and reads the first in place. So y =
x W' is computed as (W x')': the weights come first, and only the input, which is small, is copied.
"""

from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from graphs.tflite.graph import Graph, Node, Payload, Tensor

# Size as float32 weights. Of a smaller model a second copy does no harm, and other delegates know plain layers best.
AT_LEAST_BYTES = 1 << 30

_OPERATORS = schema.BuiltinOperator
_FLOAT32, _FLOAT16, _INT32 = schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.INT32


def use_weights_in_place(graph: Graph) -> int:
    """Rewrite fully connected layers in place, and return how many were rewritten.

    A layer is rewritten if its input has shape (rows, features) with 1 < rows < features, it has no fused activation,
    and its weights are a float32 constant, or a float16 constant that no other node reads. With more rows, transposing
    the output would take longer than copying the weights. Float16 weights stay float16 in memory: each layer casts its
    own to float32 just before its product, at every run.
    """
    makers = {id(output): node for node in graph.nodes for output in node.outputs}
    users: dict[int, int] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            users[id(tensor)] = users.get(id(tensor), 0) + 1
    nodes: list[Node] = []
    dropped = set()
    count = 0
    for node in graph.nodes:
        if not _is_large(node):
            nodes.append(node)
            continue
        weight = node.inputs[1]
        assert weight is not None  # _is_large
        if weight.payload is not None and weight.table.type == _FLOAT32:
            nodes += _product(node, weight)
        elif (maker := makers.get(id(weight))) and (stored := _half(maker)) and users[id(weight)] == 1:
            nodes += _expanded_product(node, weight, stored)
            dropped.add(id(maker))
        else:
            nodes.append(node)
            continue
        count += 1
    graph.nodes = [node for node in nodes if id(node) not in dropped]
    return count


def _is_large(node: Node) -> bool:
    if node.code[0] != _OPERATORS.FULLY_CONNECTED or node.table.builtinOptions.fusedActivationFunction:
        return False
    x, weight = node.inputs[:2]
    return x is not None and weight is not None and len(x.shape) == 2 and x.shape[1] > x.shape[0] > 1


def _half(maker: Node) -> Tensor | None:
    """Return the float16 constant that a DEQUANTIZE makes float32, or None for another node."""
    source = maker.inputs[0]
    if maker.code[0] == _OPERATORS.DEQUANTIZE and source is not None and source.table.type == _FLOAT16:
        return source if source.payload is not None else None
    return None


def _product(node: Node, weight: Tensor) -> Iterator[Node]:
    """Yield the nodes that compute (W x')' + bias."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None and y is not None  # the operator has both
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    turned = _like(y, "turned", y.shape[::-1])
    options = schema.BatchMatMulOptionsT()
    options.adjY = True
    yield _node(_OPERATORS.BATCH_MATMUL, [weight, x], turned, options)
    rows = y if bias is None else _like(y, "rows", y.shape)
    yield _node(_OPERATORS.TRANSPOSE, [turned, _integers(y, "order", [1, 0])], rows, schema.TransposeOptionsT())
    if bias is not None:
        yield _node(_OPERATORS.ADD, [rows, bias], y, schema.AddOptionsT())


def _expanded_product(node: Node, weight: Tensor, stored: Tensor) -> Iterator[Node]:
    """Yield the nodes that look up float16 weights at index 0, cast them to float32, and compute the product.

    The runtime would cast a constant once and keep the result. The index is computed from the input (ARG_MAX of a
    single value), so that the cast waits for the input, and the memory of the float32 weights is free again for the
    next layer.
    """
    x = node.inputs[0]
    assert x is not None  # the operator has an input
    first, value = _like(x, "first", (1, 1)), _like(x, "value", (1,))
    begin, size = _integers(x, "begin", [0, 0]), _integers(x, "size", [1, 1])
    yield _node(_OPERATORS.SLICE, [x, begin, size], first, schema.SliceOptionsT())
    reshape, shape = schema.ReshapeOptionsT(), _integers(x, "shape", [1])
    reshape.newShape = [1]
    yield _node(_OPERATORS.RESHAPE, [first, shape], value, reshape)
    index = _tensor(f"{x.name}/zero", (), _INT32)
    largest = schema.ArgMaxOptionsT()
    largest.outputType = _INT32
    yield _node(_OPERATORS.ARG_MAX, [value, _integers(x, "axis", 0)], index, largest)
    table = _tensor(f"{stored.name}/table", (1, *stored.shape), _FLOAT16, stored.payload)
    half = _tensor(f"{stored.name}/half", stored.shape, _FLOAT16)
    yield _node(_OPERATORS.GATHER, [table, index], half, schema.GatherOptionsT(), version=5)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = _FLOAT16, _FLOAT32
    yield _node(_OPERATORS.CAST, [half], weight, cast, version=4)
    yield from _product(node, weight)


def _like(tensor: Tensor, what: str, shape: tuple[int, ...]) -> Tensor:
    return _tensor(f"{tensor.name}/{what}", shape, _FLOAT32)


def _integers(tensor: Tensor, what: str, values: list[int] | int) -> Tensor:
    array = np.array(values, "<i4")
    data = array.tobytes()
    return _tensor(f"{tensor.name}/{what}", array.shape, _INT32, Payload(None, 0, len(data), data))


def _tensor(name: str, shape: tuple[int, ...], type: int, payload: Payload | None = None) -> Tensor:
    table = schema.TensorT()
    table.name, table.shape, table.type, table.hasRank = name.encode(), list(shape), type, True
    return Tensor(table, payload)


def _node(code: int, inputs: list[Tensor | None], output: Tensor, options: object, version: int = 1) -> Node:
    operator = schema.OperatorT()
    operator.builtinOptions = options
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return Node(operator, (code, None, version), inputs, [output], [])
