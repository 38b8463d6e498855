"""A TFLite file as a graph of Python objects. Its weights stay in the file and are not loaded."""

import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from backends.errors import InvalidArtifact
from backends.flatbuffer import check_tflite

SIGNATURE = b"serving_default"
# Name of the metadata {name in the ONNX graph: [name of the tensor that holds it in the file, order of its axes]}.
ORIGINS_METADATA = b"onnx_tensors"

_DTYPES: dict[int, str] = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)
}


@dataclass(frozen=True, eq=False)
class Payload:
    """The bytes of one buffer: `size` bytes from `offset` of `file`, or `data` in memory where `file` is None."""

    file: Path | None
    offset: int
    size: int
    data: bytes = b""


@dataclass(eq=False)
class Tensor:
    """A tensor. `table` is the schema's TensorT, whose field `buffer` is ignored.

    `payload` holds the bytes of a constant; None for a tensor that is computed or an input, and for an empty constant.
    """

    table: Any
    payload: Payload | None

    @property
    def name(self) -> str:
        """The name in the file, its bytes that are not UTF-8 escaped; "" for a tensor without a name."""
        name: bytes | None = self.table.name
        return "" if name is None else name.decode(errors="backslashreplace")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.table.shape) if self.table.shape is not None else ()

    @property
    def dtype(self) -> str:
        """The type of the values: numpy's name for it, or the schema's own name in lower case, such as "int4"."""
        return _DTYPES.get(self.table.type, "?")


@dataclass(eq=False)
class Node:
    """An operator. `table` is the schema's OperatorT; `code` is (builtin code, custom code, version).

    An optional input that is missing is None.
    """

    table: Any
    code: tuple[int, bytes | None, int]
    inputs: list[Tensor | None]
    outputs: list[Tensor | None]
    intermediates: list[Tensor | None]


@dataclass(eq=False)
class TensorOrigin:
    """The link from a tensor of the ONNX graph, by name, to the TFLite tensor that holds it.

    `order` is the order in which the axes of the ONNX tensor lie in `tensor`, or None where it is the same. A graph
    that was cut may have several origins of one name: the first whose tensor is in the final graph counts.
    """

    name: str
    tensor: Tensor
    order: tuple[int, ...] | None


@dataclass
class Graph:
    """The only subgraph of a file.

    Inputs and outputs go by their names in its signature; nodes are in running order.
    """

    description: bytes
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    metadata: dict[bytes, Payload] = field(default_factory=dict)
    origins: list[TensorOrigin] = field(default_factory=list)

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor in use once: inputs of the graph first, then in the order in which the nodes use them."""
        seen: dict[int, Tensor] = {}
        nodes = (t for node in self.nodes for t in (*node.inputs, *node.outputs, *node.intermediates))
        for tensor in (*self.inputs.values(), *nodes, *self.outputs.values()):
            if tensor is not None and id(tensor) not in seen:
                seen[id(tensor)] = tensor
                yield tensor


def read_graph(path: Path) -> Graph:
    """Read everything of a TFLite file except its weights.

    Raises InvalidArtifact for a damaged file, and unless the file has exactly one subgraph and one signature, as the
    files of the converter and of this project have.
    """
    check_tflite(path)
    model, payloads = _tables(path)
    if len(model.subgraphs) != 1 or len(model.signatureDefs or ()) != 1:
        raise InvalidArtifact(f"{path}: expected one subgraph and one signature")
    table, signature = model.subgraphs[0], model.signatureDefs[0]
    tensors = [Tensor(tensor, payloads[tensor.buffer]) for tensor in table.tensors]
    codes = [(max(c.builtinCode, c.deprecatedBuiltinCode), c.customCode, c.version) for c in model.operatorCodes]

    def named(entries: Any) -> dict[str, Tensor]:
        return {entry.name.decode(): tensors[entry.tensorIndex] for entry in entries}

    def pick(indices: Any) -> list[Tensor | None]:
        return [tensors[i] if i >= 0 else None for i in (() if indices is None else indices)]

    return Graph(
        description=model.description or b"",
        inputs=named(signature.inputs),
        outputs=named(signature.outputs),
        nodes=[
            Node(o, codes[o.opcodeIndex], pick(o.inputs), pick(o.outputs), pick(o.intermediates))
            for o in table.operators
        ],
        metadata={
            entry.name: payload
            for entry in model.metadata or ()
            if entry.name != ORIGINS_METADATA and (payload := payloads[entry.buffer])
        },
        origins=_origins(path, model, payloads, tensors),
    )


def origins_payload(origins: Iterable[TensorOrigin], kept: Iterable[Tensor]) -> Payload | None:
    """Return the content of ORIGINS_METADATA, or None if it would be empty.

    For each name, the first origin counts whose tensor is among `kept`.
    """
    present = {id(tensor) for tensor in kept}
    found: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    for one in origins:
        if id(one.tensor) in present:
            found.setdefault(one.name, (one.tensor.table.name.decode(), one.order))
    data = json.dumps(found, separators=(",", ":")).encode()
    return Payload(None, 0, len(data), data) if found else None


def read_payload(payload: Payload) -> bytes:
    """Return the bytes of a payload, read from its file if it has one."""
    if payload.file is None:
        return payload.data
    with payload.file.open("rb") as file:
        file.seek(payload.offset)
        return file.read(payload.size)


def _origins(path: Path, model: Any, payloads: list[Payload | None], tensors: list[Tensor]) -> list[TensorOrigin]:
    found = [payloads[entry.buffer] for entry in model.metadata or () if entry.name == ORIGINS_METADATA]
    if not found or found[0] is None:
        return []
    by_name = {tensor.name: tensor for tensor in tensors}
    try:
        return [
            TensorOrigin(name, by_name[stored], None if order is None else tuple(order))
            for name, (stored, order) in json.loads(read_payload(found[0])).items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArtifact(
            f"{path}: metadata {ORIGINS_METADATA.decode()!r} is damaged or of another program; convert the model again"
        ) from error


def _tables(path: Path) -> tuple[Any, list[Payload | None]]:
    """Return the schema's ModelT and, for each buffer, where its bytes lie; None for an empty buffer."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = np.frombuffer(data, np.uint8).ctypes.data
    model = schema.ModelT.InitFromPackedBuf(data)
    payloads: list[Payload | None] = []
    for buffer in model.buffers:
        if buffer.size:  # the bytes lie behind the flatbuffer, as in a file over 2 GB
            payloads.append(Payload(path, buffer.offset, buffer.size))
            continue
        values, buffer.data = buffer.data, None
        filled = isinstance(values, np.ndarray) and values.size
        payloads.append(Payload(path, values.ctypes.data - start, values.size) if filled else None)
    return _without_views(model), payloads


def _without_views(value: Any) -> Any:
    """Return a table whose arrays are copies instead of views of the mapped file: once they are gone, the file is
    released, and deleting it frees its disk. The table is changed in place; a deep copy takes five times as long."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list):
        value[:] = [_without_views(item) for item in value]
    elif hasattr(value, "__dict__"):
        fields = vars(value)
        for name, item in fields.items():
            if not isinstance(item, (int, float, bytes, type(None))):
                fields[name] = _without_views(item)
    return value
