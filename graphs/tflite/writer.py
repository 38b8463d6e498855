"""Writes a graph as a TFLite file. Weights are copied from file to file, so that memory holds only the tables."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import flatbuffers  # type: ignore[import-untyped]  # it publishes no types
from ai_edge_litert import schema_py_generated as schema

from graphs.tflite.graph import ORIGINS_METADATA, SIGNATURE, Graph, Payload, Tensor, origins_payload

# Offsets inside a flatbuffer are signed 32-bit numbers. 64 MiB are left for the tables of a large model.
LARGEST_FLATBUFFER_BYTES = (1 << 31) - (64 << 20)

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # bytes; the schema asks for it for weights
_COPY_BYTES = 4 << 20
# Positions of the fields of the table Buffer in its vtable.
_DATA, _OFFSET, _SIZE = 4, 6, 8
_LAST_OLD_CODE = 127  # builtin codes once had one byte, and older readers still look there first


@dataclass(frozen=True)
class WeightRange:
    """A range of weights to copy: `size` bytes at `offset` of `file` go to byte `start` of the file being written."""

    file: Path
    offset: int
    size: int
    start: int


def write_graph(
    graph: Graph, path: Path, flatbuffer_limit_bytes: int = LARGEST_FLATBUFFER_BYTES, weights_from: int = 0
) -> None:
    """Write `graph` as a file with one subgraph and one signature. The same graph gives the same bytes.

    Weights lie inside the flatbuffer if they take at most `flatbuffer_limit_bytes`, else behind it, from byte
    `weights_from` on.
    """
    copy_weights(begin_file(graph, path, flatbuffer_limit_bytes, weights_from), path)


def begin_file(
    graph: Graph, path: Path, flatbuffer_limit_bytes: int = LARGEST_FLATBUFFER_BYTES, weights_from: int = 0
) -> list[WeightRange]:
    """Write a graph in a file of its full size, with holes in the places of weights that lie in other files.

    Returns the ranges that copy_weights must copy into the holes.
    """
    tensors = list(graph.tensors())
    _make_distinct(tensors)
    metadata = dict(graph.metadata)
    if (origins := origins_payload(graph.origins, tensors)) is not None:
        metadata[ORIGINS_METADATA] = origins
    payloads = list(dict.fromkeys(payload for payload in _payloads(metadata, tensors)))
    inside = sum(_aligned(payload.size) + _ALIGNMENT for payload in payloads) <= flatbuffer_limit_bytes
    head = _head(_model(graph, tensors, payloads, metadata, inside))
    fields = _fields(head)
    left = []
    end = len(head)
    with path.open("wb") as target:
        for i, payload in enumerate(payloads):
            if inside:  # a flatbuffer's vector: its length, then its items
                start = _aligned(end + 4)
                target.seek(start - 4)
                target.write(payload.size.to_bytes(4, "little"))
                at = fields[i + 1][_DATA]
                _patch(head, at, start - 4 - at, 4)
            else:
                start = max(_aligned(end), weights_from)
                _patch(head, fields[i + 1][_OFFSET], start, 8)
                _patch(head, fields[i + 1][_SIZE], payload.size, 8)
            if payload.file is None:
                target.seek(start)
                target.write(payload.data)
            else:
                left.append(WeightRange(payload.file, payload.offset, payload.size, start))
            end = start + payload.size
        target.truncate(_aligned(end))
        target.seek(0)
        target.write(head)
    return left


def copy_weights(
    weights: Iterable[WeightRange], path: Path, copied: Callable[[Path], None] = lambda file: None
) -> None:
    """Copy ranges of weights to their places in `path`, one source file after the other.

    `copied` is called with each source file once all of its ranges are on the disk. Raises OSError if a source file is
    shorter than when it was read.
    """
    by_file: dict[Path, list[WeightRange]] = {}
    for one in weights:
        by_file.setdefault(one.file, []).append(one)
    with path.open("r+b") as target:
        for file, ranges in by_file.items():
            with file.open("rb") as source:
                for one in ranges:
                    _copy(source, target, one)
            target.flush()
            os.fsync(target.fileno())
            copied(file)


def _payloads(metadata: Mapping[bytes, Payload], tensors: Iterable[Tensor]) -> Iterable[Payload]:
    yield from (tensor.payload for tensor in tensors if tensor.payload is not None)
    yield from metadata.values()


def _make_distinct(tensors: Iterable[Tensor]) -> None:
    """Give every tensor a name of its own: the second tensor called "x" becomes "x/2".

    Slices give some tensors the same name, and tools look tensors up by name. The new names do not depend on the
    precision.
    """
    uses: Counter[bytes] = Counter()
    for tensor in tensors:
        uses[tensor.table.name] += 1
        if uses[tensor.table.name] > 1:
            tensor.table.name += b"/%d" % uses[tensor.table.name]


def _model(
    graph: Graph, tensors: list[Tensor], payloads: list[Payload], metadata: Mapping[bytes, Payload], inside: bool
) -> Any:
    """Return the schema's ModelT of a graph. Positions of the weights are filled in once they are known."""
    index = {id(tensor): i for i, tensor in enumerate(tensors)}
    buffer = {payload: i + 1 for i, payload in enumerate(payloads)}  # buffer 0 is the schema's empty one
    codes = {code: i for i, code in enumerate(dict.fromkeys(node.code for node in graph.nodes))}
    for tensor in tensors:
        tensor.table.buffer = 0 if tensor.payload is None else buffer[tensor.payload]
    for node in graph.nodes:
        node.table.opcodeIndex = codes[node.code]
        for field in ("inputs", "outputs", "intermediates"):
            picked = [-1 if tensor is None else index[id(tensor)] for tensor in getattr(node, field)]
            setattr(node.table, field, picked)

    subgraph = schema.SubGraphT()
    subgraph.name = b"main"
    subgraph.tensors = [tensor.table for tensor in tensors]
    subgraph.operators = [node.table for node in graph.nodes]
    subgraph.inputs = [index[id(tensor)] for tensor in graph.inputs.values()]
    subgraph.outputs = [index[id(tensor)] for tensor in graph.outputs.values()]
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = [_tensor_map(name, index[id(tensor)]) for name, tensor in graph.inputs.items()]
    signature.outputs = [_tensor_map(name, index[id(tensor)]) for name, tensor in graph.outputs.items()]
    model = schema.ModelT()
    model.version = 3
    model.description = graph.description
    model.operatorCodes = [_operator_code(*code) for code in codes]
    model.subgraphs = [subgraph]
    model.signatureDefs = [signature]
    model.buffers = [schema.BufferT(), *(_place(inside) for _ in payloads)]
    model.metadata = [_metadata(name, buffer[payload]) for name, payload in metadata.items()]
    return model


def _place(inside: bool) -> Any:
    buffer = schema.BufferT()
    if inside:
        buffer.data = b""
    else:
        buffer.offset = buffer.size = 1  # a field that holds its default is left out of the file
    return buffer


def _tensor_map(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def _operator_code(builtin: int, custom: bytes | None, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.customCode, code.version = builtin, custom, version
    code.deprecatedBuiltinCode = min(builtin, _LAST_OLD_CODE)
    return code


def _metadata(name: bytes, buffer: int) -> Any:
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, buffer
    return entry


def _head(model: Any) -> bytearray:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytearray(builder.Output())


def _fields(head: bytearray) -> list[dict[int, int]]:
    """Return, for each buffer, the positions of its fields in `head`, with 0 for a field that is left out."""
    model = schema.Model.GetRootAs(head, 0)
    tables = [model.Buffers(i)._tab for i in range(model.BuffersLength())]
    return [
        {field: table.Pos + at if (at := table.Offset(field)) else 0 for field in (_DATA, _OFFSET, _SIZE)}
        for table in tables
    ]


def _patch(head: bytearray, at: int, value: int, size: int) -> None:
    head[at : at + size] = value.to_bytes(size, "little")


def _copy(source: BinaryIO, target: BinaryIO, weights: WeightRange) -> None:
    source.seek(weights.offset)
    target.seek(weights.start)
    left = weights.size
    while left:
        chunk = source.read(min(left, _COPY_BYTES))
        if not chunk:
            raise OSError(f"{weights.file}: shorter than when it was read")
        target.write(chunk)
        left -= len(chunk)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
