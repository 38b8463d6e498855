"""A TFLite file between two others: some layers of its FP16 form, the others of its INT8 form.

A layer of the INT8 form computes on float32 and gives float32, so it can stand in the place of its FP16 form. Any
mixture is made of the two files alone, without the converter, whatever slices they were lowered in.
"""

from collections.abc import Collection
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from backends.errors import InvalidArtifact, InvalidInput
from toolkit.convert.tflite_graph import Graph, Node, Tensor, read_graph

_INT8 = schema.TensorType.INT8


def mix(fp16: Path, int8: Path, kept: Collection[str]) -> Graph:
    """The FP16 file with every layer that is not `kept` taken from the INT8 file.

    Layers have the names of their weights, which tell the ONNX node and do not depend on how the graph was cut.
    Raises InvalidInput for a kept layer that is none, and InvalidArtifact for two files that are not of one graph.
    """
    graph, layers = read_graph(fp16), _layers(int8)
    if unknown := sorted(set(kept) - layers.keys()):
        raise InvalidInput(f"{int8.name}: no layer {unknown[0]!r} to keep; there is {', '.join(layers)}")
    tensors = {tensor.table.name: tensor for tensor in graph.tensors()}
    makers = {id(tensor): i for i, node in enumerate(graph.nodes) for tensor in node.outputs}
    for layer in (layer for name, sharing in layers.items() if name not in kept for layer in sharing):
        output = _same(layer.outputs[0], tensors, fp16)
        inputs = [t if t is None or t.payload is not None else _same(t, tensors, fp16) for t in layer.inputs]
        graph.nodes[makers[id(output)]] = Node(layer.table, layer.code, inputs, [output], layer.intermediates)
    _drop_unused(graph)
    return graph


def layer_names(int8: Path) -> tuple[str, ...]:
    """The layers that `mix` can take from either file, in running order."""
    return tuple(_layers(int8))


def _layers(path: Path) -> dict[str, list[Node]]:
    """The operators of each INT8 weight: of one that is shared there are several."""
    found: dict[str, list[Node]] = {}
    for node in read_graph(path).nodes:
        for tensor in node.inputs:
            if tensor is not None and tensor.table.type == _INT8:
                found.setdefault(tensor.table.name.decode(), []).append(node)
    return found


def _same(tensor: Tensor | None, tensors: dict[bytes, Tensor], path: Path) -> Tensor:
    assert tensor is not None  # a layer's own
    found = tensors.get(tensor.table.name)
    if found is None or (found.shape, found.table.type) != (tensor.shape, tensor.table.type):
        name = tensor.table.name.decode()
        raise InvalidArtifact(f"{path.name}: has no tensor {name!r} as the INT8 file has it; convert both again")
    return found


def _drop_unused(graph: Graph) -> None:
    """Remove the nodes whose outputs nothing reads, and so on towards the inputs."""
    used = {id(tensor) for tensor in graph.outputs.values()}
    nodes = []
    for node in reversed(graph.nodes):
        if any(id(tensor) in used for tensor in node.outputs):
            nodes.append(node)
            used |= {id(tensor) for tensor in node.inputs}
    graph.nodes = nodes[::-1]
