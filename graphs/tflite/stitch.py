"""Combines TFLite graphs: `stitch` joins the slices of one graph, `mix` takes layers of an FP16 and an INT8 file."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import TO_NCHW, TO_NHWC
from graphs.tflite.graph import Graph, Node, Payload, Tensor, TensorOrigin, read_graph, read_payload
from graphs.tflite.tensor_map import TensorLocation
from graphs.tflite.transposes import remove_transposes, replace_tensors, transpose

_SHARED_BYTES = 1 << 20  # larger constants are weights, and no two slices have the same weights


@dataclass(frozen=True)
class Lowered:
    """A slice of an ONNX graph that was lowered to TFLite.

    path: its TFLite file. layouts: "NCHW", "NHWC" or None for each input and output. locations: name in the ONNX graph
    -> where graphs.tflite.tensor_map found the tensor in the float32 file.
    """

    path: Path
    layouts: dict[str, str | None]
    locations: dict[str, TensorLocation] = field(default_factory=dict)


def seam_permutation(made: str | None, wanted: str | None) -> tuple[int, ...] | None:
    """Return the transpose from layout `made` of one slice to layout `wanted` of another, or None if they agree."""
    if made == wanted:
        return None
    return TO_NHWC if wanted == "NHWC" else TO_NCHW


def stitch(slices: Sequence[Lowered], inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """Return one graph that runs the slices one after the other, without the transposes that cancel at the cuts.

    `inputs` and `outputs` name the inputs and outputs of the whole graph, in order. The input of a slice is the output
    of that name of an earlier slice, or else an input of the whole graph.
    Raises InvalidArtifact if a slice's input has another type or shape than the tensor that it is given, if the slices
    need other inputs than `inputs`, or if their metadata differ.
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
            node = None if order is None else transpose(made, order, tensor)
            _check_seam(name, made, tensor, order)
            if node is None:
                replaced[id(tensor)] = made
            else:
                whole.nodes.append(node)
        whole.nodes += graph.nodes
        by_name = {tensor.name: tensor for tensor in graph.tensors()}
        # The quantizer may have removed the tensor from the graph.
        whole.origins += [
            TensorOrigin(n, by_name[stored], order)
            for n, (stored, order) in piece.locations.items()
            if stored in by_name
        ]
        replace_tensors(whole, replaced)
        here |= {
            name: (replaced.get(id(tensor), tensor), piece.layouts[name]) for name, tensor in graph.outputs.items()
        }
        _merge_metadata(whole, graph, piece.path)
    if set(whole.inputs) != set(inputs):
        raise InvalidArtifact(f"the slices need {sorted(whole.inputs)}, expected inputs {sorted(inputs)}")
    whole.inputs = {name: whole.inputs[name] for name in inputs}
    whole.outputs = {name: here[name][0] for name in outputs}
    remove_transposes(whole)
    share_constants(whole)
    return whole


def share_constants(graph: Graph) -> None:
    """Let small constants of equal bytes share one payload: each slice brings its own copy of such a constant."""
    known: dict[bytes, Payload] = {}
    for tensor in graph.tensors():
        if tensor.payload is not None and tensor.payload.size <= _SHARED_BYTES:
            tensor.payload = known.setdefault(read_payload(tensor.payload), tensor.payload)


def _check_seam(name: str, made: Tensor, wanted: Tensor, order: tuple[int, ...] | None) -> None:
    shape = made.shape if order is None else tuple(made.shape[axis] for axis in order)
    if (made.table.type, shape) != (wanted.table.type, wanted.shape):
        raise InvalidArtifact(
            f"the slices do not fit at {name!r}: one makes type {made.table.type} {shape}, "
            f"another wants type {wanted.table.type} {wanted.shape}"
        )


def _merge_metadata(whole: Graph, graph: Graph, path: Path) -> None:
    for name, payload in graph.metadata.items():
        known = whole.metadata.setdefault(name, payload)
        if read_payload(known) != read_payload(payload):
            raise InvalidArtifact(f"{path}: metadata {name.decode()!r} differs from that of the slices before it")


_INT8 = schema.TensorType.INT8


def mix(fp16: Path, int8: Path, kept: Collection[str]) -> Graph:
    """Return the graph of the FP16 file, with every layer that is not in `kept` taken from the INT8 file.

    Layers are named after their weights: these names tell the ONNX node and do not depend on how the graph was cut.
    Raises InvalidInput if a name in `kept` is not a layer, and InvalidArtifact if the files do not come from one graph.
    """
    graph, layers = read_graph(fp16), _layers(int8)
    if unknown := sorted(set(kept) - layers.keys()):
        raise InvalidInput(f"{int8.name}: no layer {unknown[0]!r} to keep; there is {', '.join(layers)}")
    tensors = {tensor.name: tensor for tensor in graph.tensors()}
    makers = {id(tensor): i for i, node in enumerate(graph.nodes) for tensor in node.outputs}
    for layer in (layer for name, sharing in layers.items() if name not in kept for layer in sharing):
        output = _same(layer.outputs[0], tensors, fp16)
        inputs = [t if t is None or t.payload is not None else _same(t, tensors, fp16) for t in layer.inputs]
        graph.nodes[makers[id(output)]] = Node(layer.table, layer.code, inputs, [output], layer.intermediates)
    _drop_unused(graph)
    return graph


def layer_names(int8: Path) -> tuple[str, ...]:
    """Return the names of the layers that `mix` can take from either file, in running order."""
    return tuple(_layers(int8))


def _layers(path: Path) -> dict[str, list[Node]]:
    """Return {name of an INT8 weight: the operators that read it}, in running order."""
    found: dict[str, list[Node]] = {}
    for node in read_graph(path).nodes:
        for tensor in node.inputs:
            if tensor is not None and tensor.table.type == _INT8:
                found.setdefault(tensor.name, []).append(node)
    return found


def _same(tensor: Tensor | None, tensors: dict[str, Tensor], path: Path) -> Tensor:
    assert tensor is not None  # every layer has its first output and its inputs
    found = tensors.get(tensor.name)
    if found is None or (found.shape, found.table.type) != (tensor.shape, tensor.table.type):
        raise InvalidArtifact(
            f"{path.name}: has no tensor {tensor.name!r} of the shape and type that the INT8 file has; convert "
            "both again"
        )
    return found


def _drop_unused(graph: Graph) -> None:
    """Remove the nodes whose outputs nothing reads, from the outputs of the graph back to its inputs."""
    used = {id(tensor) for tensor in graph.outputs.values()}
    nodes = []
    for node in reversed(graph.nodes):
        if any(id(tensor) in used for tensor in node.outputs):
            nodes.append(node)
            used |= {id(tensor) for tensor in node.inputs}
    graph.nodes = nodes[::-1]
