"""Joins lowered slices into one graph, and removes the transposes that meet their inverses where they were cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from backends.errors import InvalidArtifact
from toolkit.convert.correspondence import TO_NCHW, TO_NHWC, Place
from toolkit.convert.tflite_graph import Graph, Held, Node, Payload, Tensor, read_graph, read_payload

_TRANSPOSE = schema.BuiltinOperator.TRANSPOSE
_INT32 = schema.TensorType.INT32
_SHARED_BYTES = 1 << 20  # larger constants are weights, which no two slices have in common


@dataclass(frozen=True)
class Lowered:
    """A slice's TFLite file, the layout that it gives each input and output ("NCHW", "NHWC" or None), and `held`:
    by name, each tensor of the ONNX graph that toolkit.convert.correspondence found in the float32 file."""

    path: Path
    layouts: dict[str, str | None]
    held: dict[str, Place] = field(default_factory=dict)


def seam_permutation(made: str | None, wanted: str | None) -> tuple[int, ...] | None:
    """The transpose from the layout that one slice makes to the one that another wants; None where they agree."""
    if made == wanted:
        return None
    return TO_NHWC if wanted == "NHWC" else TO_NCHW


def stitch(slices: Sequence[Lowered], inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """One graph that runs the slices one after the other; `inputs` and `outputs` are those it has in the end.

    A slice's input is the output of that name of an earlier slice, or else an input of the whole.
    Raises InvalidArtifact where a slice's input is of another type or shape than what it is given.
    """
    graphs = [read_graph(piece.path) for piece in slices]
    whole = Graph(graphs[0].description)
    here: dict[str, tuple[Tensor, str | None]] = {}
    for piece, graph in zip(slices, graphs, strict=True):
        replaced: dict[int, Tensor] = {}
        for name, tensor in graph.inputs.items():
            if name not in here:
                whole.inputs[name] = tensor
                here[name] = (tensor, piece.layouts[name])
                continue
            made, layout = here[name]
            order = seam_permutation(layout, piece.layouts[name])
            node = None if order is None else _transpose(made, order, tensor)
            _check_seam(name, made, tensor, order)
            if node is None:
                replaced[id(tensor)] = made
            else:
                whole.nodes.append(node)
        whole.nodes += graph.nodes
        by_name = {tensor.table.name.decode(): tensor for tensor in graph.tensors()}
        # A tensor that the quantizer took out of the graph holds nothing any more.
        whole.held += [
            Held(n, by_name[stored], order) for n, (stored, order) in piece.held.items() if stored in by_name
        ]
        _replace(whole, replaced)
        here |= {
            name: (replaced.get(id(tensor), tensor), piece.layouts[name]) for name, tensor in graph.outputs.items()
        }
        _merge_metadata(whole, graph, piece.path)
    if set(whole.inputs) != set(inputs):
        raise InvalidArtifact(f"the slices need {sorted(whole.inputs)}, expected inputs {sorted(inputs)}")
    whole.inputs = {name: whole.inputs[name] for name in inputs}
    whole.outputs = {name: here[name][0] for name in outputs}
    cancel_transposes(whole)
    share_constants(whole)
    return whole


def share_constants(graph: Graph) -> None:
    """Let small constants of the same bytes share them: each slice brought its own copy of what several use."""
    known: dict[bytes, Payload] = {}
    for tensor in graph.tensors():
        if tensor.payload is not None and tensor.payload.size <= _SHARED_BYTES:
            tensor.payload = known.setdefault(read_payload(tensor.payload), tensor.payload)


def cancel_transposes(graph: Graph) -> int:
    """Remove each transpose of a transpose that undoes it, and what nothing uses then. Returns how many went."""
    before = len(graph.nodes)
    maker = {id(output): node for node in graph.nodes for output in node.outputs}
    kept = {id(tensor) for tensor in graph.outputs.values()}
    replaced: dict[int, Tensor] = {}
    for node in graph.nodes:
        second = _order(node)
        first_node = maker.get(id(node.inputs[0]))
        first = None if first_node is None else _order(first_node)
        if first is None or second is None or first_node is None or id(node.outputs[0]) in kept:
            continue
        if all(first[axis] == i for i, axis in enumerate(second)) and (source := first_node.inputs[0]) is not None:
            replaced[id(node.outputs[0])] = replaced.get(id(source), source)
    _replace(graph, replaced)
    graph.nodes = [node for node in graph.nodes if id(node.outputs[0]) not in replaced]
    used = kept | {id(tensor) for node in graph.nodes for tensor in node.inputs}
    graph.nodes = [node for node in graph.nodes if _order(node) is None or id(node.outputs[0]) in used]
    return before - len(graph.nodes)


def _check_seam(name: str, made: Tensor, wanted: Tensor, order: tuple[int, ...] | None) -> None:
    shape = made.shape if order is None else tuple(made.shape[axis] for axis in order)
    if (made.table.type, shape) != (wanted.table.type, wanted.shape):
        raise InvalidArtifact(
            f"the slices do not fit at {name!r}: one makes type {made.table.type} {shape}, "
            f"another wants type {wanted.table.type} {wanted.shape}"
        )


def _replace(graph: Graph, replaced: dict[int, Tensor]) -> None:
    for node in graph.nodes:
        node.inputs = [replaced.get(id(tensor), tensor) for tensor in node.inputs]
    for held in graph.held:
        held.tensor = replaced.get(id(held.tensor), held.tensor)


def _merge_metadata(whole: Graph, graph: Graph, path: Path) -> None:
    for name, payload in graph.metadata.items():
        known = whole.metadata.setdefault(name, payload)
        if read_payload(known) != read_payload(payload):
            raise InvalidArtifact(f"{path}: metadata {name.decode()!r} differs from that of the slices before it")


def _transpose(source: Tensor, order: tuple[int, ...], target: Tensor) -> Node:
    table = schema.TensorT()
    table.name, table.shape, table.type, table.hasRank = target.table.name + b"/order", [len(order)], _INT32, True
    data = np.array(order, "<i4").tobytes()
    operator = schema.OperatorT()
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
    operator.builtinOptions = schema.TransposeOptionsT()
    constant = Tensor(table, Payload(None, 0, len(data), data))
    return Node(operator, (_TRANSPOSE, None, 1), [source, constant], [target], [])


def _order(node: Node) -> tuple[int, ...] | None:
    """The axes of a transpose by a constant, else None."""
    if node.code[0] != _TRANSPOSE or (constant := node.inputs[1]) is None or constant.payload is None:
        return None
    return tuple(int(axis) for axis in np.frombuffer(read_payload(constant.payload), "<i4"))
