"""A TFLite file as a graph of Python objects, its weights left where they are: in their file."""

import copy
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

# Metadata of ours: which tensor of the ONNX graph is held by which of the file, {ONNX name: [name, order of axes]}.
ORIGINS_METADATA = b"onnx_tensors"


@dataclass(frozen=True, eq=False)
class Payload:
    """The bytes of one buffer: a range of a file, or in memory where `file` is None."""

    file: Path | None
    offset: int
    size: int
    data: bytes = b""


@dataclass(eq=False)
class Tensor:
    """`table` is the schema's own object, whose `buffer` field means nothing here."""

    table: Any
    payload: Payload | None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.table.shape) if self.table.shape is not None else ()


@dataclass(eq=False)
class Node:
    """An operator. `code` is (builtin code, custom code, version); an input that is left out is None."""

    table: Any
    code: tuple[int, bytes | None, int]
    inputs: list[Tensor | None]
    outputs: list[Tensor | None]
    intermediates: list[Tensor | None]


@dataclass(eq=False)
class TensorOrigin:
    """A tensor of the ONNX graph, by name, and the one that holds it: its axes in `order`, None where as they are.

    A name may come twice, where a graph was cut: whichever tensor is still there in the end holds it.
    """

    name: str
    tensor: Tensor
    order: tuple[int, ...] | None


@dataclass
class Graph:
    """The one subgraph of a file. Inputs and outputs by their names in its signature; nodes in running order."""

    description: bytes
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    metadata: dict[bytes, Payload] = field(default_factory=dict)
    origins: list[TensorOrigin] = field(default_factory=list)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor in use, once, in the order in which the nodes meet them."""
        seen: dict[int, Tensor] = {}
        nodes = (t for node in self.nodes for t in (*node.inputs, *node.outputs, *node.intermediates))
        for tensor in (*self.inputs.values(), *nodes, *self.outputs.values()):
            if tensor is not None and id(tensor) not in seen:
                seen[id(tensor)] = tensor
                yield tensor


def read_graph(path: Path) -> Graph:
    """Read everything but the weights. Raises InvalidArtifact for a damaged file, and for what we do not write.

    Files with several subgraphs or signatures come neither from the converter's slices nor from ours.
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
    """Return the content of ORIGINS_METADATA: for each name the first origin with a `kept` tensor, or None."""
    present = {id(tensor) for tensor in kept}
    found: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    for one in origins:
        if id(one.tensor) in present:
            found.setdefault(one.name, (one.tensor.table.name.decode(), one.order))
    data = json.dumps(found, separators=(",", ":")).encode()
    return Payload(None, 0, len(data), data) if found else None


def read_payload(payload: Payload) -> bytes:
    """The bytes themselves."""
    if payload.file is None:
        return payload.data
    with payload.file.open("rb") as file:
        file.seek(payload.offset)
        return file.read(payload.size)


def _origins(path: Path, model: Any, payloads: list[Payload | None], tensors: list[Tensor]) -> list[TensorOrigin]:
    found = [payloads[entry.buffer] for entry in model.metadata or () if entry.name == ORIGINS_METADATA]
    if not found or found[0] is None:
        return []
    by_name = {tensor.table.name.decode(): tensor for tensor in tensors}
    try:
        return [
            TensorOrigin(name, by_name[stored], None if order is None else tuple(order))
            for name, (stored, order) in json.loads(read_payload(found[0])).items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArtifact(
            f"{path}: metadata {ORIGINS_METADATA.decode()!r} is not what we write; convert it again"
        ) from error


def _tables(path: Path) -> tuple[Any, list[Payload | None]]:
    """The schema's objects, and where each buffer's bytes lie."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = np.frombuffer(data, np.uint8).ctypes.data
    model = schema.ModelT.InitFromPackedBuf(data)
    payloads: list[Payload | None] = []
    for buffer in model.buffers:
        if buffer.size:  # behind the flatbuffer, of a file over 2 GB
            payloads.append(Payload(path, buffer.offset, buffer.size))
            continue
        values, buffer.data = buffer.data, None
        filled = isinstance(values, np.ndarray) and values.size
        payloads.append(Payload(path, values.ctypes.data - start, values.size) if filled else None)
    # Arrays in the tables look into the mapping; a copy lets go of it, so that a deleted file frees its disk.
    return copy.deepcopy(model), payloads
