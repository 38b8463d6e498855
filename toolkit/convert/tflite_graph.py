"""A TFLite file as a graph of Python objects, its weights left where they are: in their file."""

import copy
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from backends.errors import InvalidArtifact
from backends.flatbuffer import check_tflite

SIGNATURE = b"serving_default"


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


@dataclass
class Graph:
    """The one subgraph of a file. Inputs and outputs by their names in its signature; nodes in running order."""

    description: bytes
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    metadata: dict[bytes, Payload] = field(default_factory=dict)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor in use, once, in the order in which the nodes meet them."""
        seen: dict[int, Tensor] = {}
        nodes = (t for node in self.nodes for t in (*node.inputs, *node.outputs, *node.intermediates))
        for tensor in (*self.inputs.values(), *nodes, *self.outputs.values()):
            if tensor is not None and id(tensor) not in seen:
                seen[id(tensor)] = tensor
                yield tensor


def read_graph(path: Path) -> Graph:
    """Read everything but the weights. Raises InvalidArtifact for a damaged file, and for what we do not merge.

    Files with several subgraphs or signatures, or with weights outside their flatbuffer, do not come from the
    converter's slices.
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
        metadata={entry.name: payload for entry in model.metadata or () if (payload := payloads[entry.buffer])},
    )


def _tables(path: Path) -> tuple[Any, list[Payload | None]]:
    """The schema's objects, and where each buffer's bytes lie."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = np.frombuffer(data, np.uint8).ctypes.data
    model = schema.ModelT.InitFromPackedBuf(data)
    payloads: list[Payload | None] = []
    for buffer in model.buffers:
        if buffer.offset or buffer.size:
            raise InvalidArtifact(f"{path}: weights outside the flatbuffer, expected a slice under 2 GB")
        values, buffer.data = buffer.data, None
        filled = isinstance(values, np.ndarray) and values.size
        payloads.append(Payload(path, values.ctypes.data - start, values.size) if filled else None)
    # Arrays in the tables look into the mapping; a copy lets go of it, so that a deleted file frees its disk.
    return copy.deepcopy(model), payloads
