"""Stores the float32 constants of a TFLite graph that the quantizer left alone in fewer bytes: embedding tables,
kernels of 3-D convolutions, stacks of matrices, learned positions.

An embedding table stays in its stored type in memory: the runtime widens the rows that a run looks up. Every other
constant becomes float32 again once, when the runtime loads the file or in the first run.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from backends.tensor import Array
from graphs.tflite.graph import Graph, Node, Payload, Tensor, read_graph, read_payload
from graphs.tflite.writer import write_graph

# Values; a smaller constant saves less than its scales and operators cost.
LEAST_VALUES = 4096
# Of the bytes of weights: a graph that stores less in the type of its precision stores its small constants too.
LEAST_SHARE = 0.1
_OPERATORS, _TYPES = schema.BuiltinOperator, schema.TensorType
_STEPS = 127
_LARGEST_HALF = float(np.finfo(np.float16).max)


def store_constants_of_file(path: Path, weights: str, in_float: Collection[str] = ()) -> None:
    """Call store_constants for the graph of a file, and write it again if that changes it."""
    graph = read_graph(path)
    if store_constants(graph, weights, in_float):
        written = path.with_suffix(".stored")
        write_graph(graph, written)
        written.replace(path)


def store_constants(graph: Graph, weights: str, in_float: Collection[str] = ()) -> int:
    """Store float32 constants as float16, or as int8 if `weights` is "int8" and the constant is an embedding table or
    the kernel of a 3-D convolution. Change the graph in place, and return how many constants were stored.

    Constants of at least LEAST_VALUES values and two axes are stored; smaller ones too, where otherwise less than
    LEAST_SHARE of the bytes would be stored as `weights` says. A constant with values that float16 cannot hold, such as
    the -3e38 of a mask, stays float32, and so do those of operators that make a tensor in `in_float`.
    """
    count = _store(graph, weights, in_float, LEAST_VALUES, 2)
    if _share(graph, weights) < LEAST_SHARE:
        count += _store(graph, weights, in_float, 2, 1 if weights == "float16" else 2)
    return count


def _store(graph: Graph, weights: str, in_float: Collection[str], least_values: int, least_rank: int) -> int:
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            readers.setdefault(id(tensor), []).append(node)
    outputs = {id(tensor) for tensor in graph.outputs.values()}
    before: dict[int, list[Node]] = {}  # id of a node -> the nodes to put before it
    instead: dict[int, list[Node]] = {}  # id of a node -> the nodes to put in its place
    count = 0
    for tensor in list(graph.tensors()):
        nodes = readers.get(id(tensor), [])
        if not nodes or id(tensor) in outputs or tensor.payload is None or tensor.table.type != _TYPES.FLOAT32:
            continue
        if tensor.payload.size < 4 * least_values or len(tensor.shape) < least_rank or tensor.table.isVariable:
            continue
        if any(made is not None and made.name in in_float for node in nodes for made in node.outputs):
            continue
        tables = all(_reads_table(node, tensor) for node in nodes)
        kernel = all(node.code[0] == _OPERATORS.CONV_3D and node.inputs[1] is tensor for node in nodes)
        values = np.frombuffer(read_payload(tensor.payload), "<f4").reshape(tensor.shape)
        if weights == "int8" and tables and len(tensor.shape) == 2:
            stored = _in_steps(tensor, values, 0)
            for node in nodes:
                instead[id(node)] = list(_look_up_steps(node, stored))
        elif weights == "int8" and kernel:
            before.setdefault(id(nodes[0]), []).append(_widened(tensor, _in_steps(tensor, values, 4), nodes))
        elif max(values.max(), -values.min()) > _LARGEST_HALF:
            continue
        elif tables:
            half = _like(tensor, "float16", _TYPES.FLOAT16, values.astype("<f2"))
            for node in nodes:
                instead[id(node)] = list(_look_up_half(node, half))
        else:
            half = _like(tensor, "float16", _TYPES.FLOAT16, values.astype("<f2"))
            before.setdefault(id(nodes[0]), []).append(_widened(tensor, half, nodes))
        count += 1
    graph.nodes = [new for node in graph.nodes for new in (*before.get(id(node), ()), *instead.get(id(node), (node,)))]
    return count


def _share(graph: Graph, weights: str) -> float:
    """Return the share of the bytes of all float and int8 constants that have the type `weights`; 1.0 without any."""
    stored = dict.fromkeys(("float32", "float16", "int8"), 0)
    for tensor in graph.tensors():
        if tensor.payload is not None and tensor.dtype in stored:
            stored[tensor.dtype] += tensor.payload.size
    return stored[weights] / total if (total := sum(stored.values())) else 1.0


def _reads_table(node: Node, tensor: Tensor) -> bool:
    """Whether a node looks up rows of the first axis of a table, with 32-bit or 64-bit indices."""
    options = node.table.builtinOptions
    return (
        node.code[0] == _OPERATORS.GATHER
        and node.inputs[0] is tensor
        and options.axis == 0
        and options.batchDims == 0
        and node.inputs[1] is not None
        and node.inputs[1].dtype in ("int32", "int64")
    )


def _look_up_steps(node: Node, table: Tensor) -> Iterator[Node]:
    """Yield the nodes that look up int8 rows, each with its own scale, in the place of a GATHER.

    EMBEDDING_LOOKUP alone widens rows of several scales. It takes a vector of 32-bit indices.
    """
    ids, rows = node.inputs[1], node.outputs[0]
    assert ids is not None and rows is not None  # _reads_table
    if ids.dtype == "int64":
        cast = schema.CastOptionsT()
        cast.inDataType, cast.outDataType = _TYPES.INT64, _TYPES.INT32
        narrow = _tensor(f"{rows.name}/ids", ids.shape, _TYPES.INT32)
        yield _node(_OPERATORS.CAST, [ids], narrow, cast)
        ids = narrow
    count = int(np.prod(ids.shape))
    if len(ids.shape) != 1:
        flat = _tensor(f"{rows.name}/flat_ids", (count,), _TYPES.INT32)
        yield _reshape(ids, flat)
        ids = flat
    if rows.shape == (count, table.shape[1]):
        yield _node(_OPERATORS.EMBEDDING_LOOKUP, [ids, table], rows, None, version=3)
        return
    found = _tensor(f"{rows.name}/flat_rows", (count, table.shape[1]), _TYPES.FLOAT32)
    yield _node(_OPERATORS.EMBEDDING_LOOKUP, [ids, table], found, None, version=3)
    yield _reshape(found, rows)


def _look_up_half(node: Node, table: Tensor) -> Iterator[Node]:
    rows = node.outputs[0]
    assert rows is not None  # _reads_table
    half = _tensor(f"{rows.name}/float16", rows.shape, _TYPES.FLOAT16)
    yield Node(node.table, (_OPERATORS.GATHER, None, 5), [table, *node.inputs[1:]], [half], [])
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = _TYPES.FLOAT16, _TYPES.FLOAT32
    yield _node(_OPERATORS.CAST, [half], rows, cast, version=4)


def _widened(tensor: Tensor, stored: Tensor, readers: list[Node]) -> Node:
    """Return the node that makes a constant float32 again, and let its readers read the output."""
    wide = _tensor(f"{tensor.name}/float32", tensor.shape, _TYPES.FLOAT32)
    for node in readers:
        node.inputs = [wide if given is tensor else given for given in node.inputs]
    version = 3 if stored.table.type == _TYPES.FLOAT16 else 5
    return _node(_OPERATORS.DEQUANTIZE, [stored], wide, schema.DequantizeOptionsT(), version)


def _in_steps(tensor: Tensor, values: Array, axis: int) -> Tensor:
    """Return a constant in symmetric int8 steps, with a scale for each entry of `axis`."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.maximum(values.max(axis=others, keepdims=True), -values.min(axis=others, keepdims=True))
    scale = np.maximum(largest / np.float32(_STEPS), np.finfo(np.float32).tiny).astype(np.float32)
    stored = _like(tensor, "int8", _TYPES.INT8, np.rint(values / scale).astype(np.int8))
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.quantizedDimension = scale.ravel(), axis
    quantization.zeroPoint = np.zeros(scale.size, np.int64)
    stored.table.quantization = quantization
    return stored


def _like(tensor: Tensor, what: str, type: int, values: Array) -> Tensor:
    data = values.tobytes()
    return _tensor(f"{tensor.name}/{what}", tensor.shape, type, Payload(None, 0, len(data), data))


def _tensor(name: str, shape: tuple[int, ...], type: int, payload: Payload | None = None) -> Tensor:
    table = schema.TensorT()
    table.name, table.shape, table.type, table.hasRank = name.encode(), list(shape), type, True
    return Tensor(table, payload)


def _reshape(given: Tensor, made: Tensor) -> Node:
    data = np.array(made.shape, "<i4").tobytes()
    shape = _tensor(f"{made.name}/shape", (len(made.shape),), _TYPES.INT32, Payload(None, 0, len(data), data))
    options = schema.ReshapeOptionsT()
    options.newShape = list(made.shape)
    return _node(_OPERATORS.RESHAPE, [given, shape], made, options)


def _node(code: int, inputs: list[Tensor | None], output: Tensor, options: Any, version: int = 1) -> Node:
    operator = schema.OperatorT()
    operator.builtinOptions = options
    if options is not None:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return Node(operator, (code, None, version), inputs, [output], [])
