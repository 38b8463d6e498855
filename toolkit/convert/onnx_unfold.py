"""Convolutions of an ONNX graph as dense layers of what each place sees, for recipes that quantize activations.

ONNX Runtime's integer convolution took 2 to 6 times the time of its float32 one. Its integer product of rows that were
copied together first took 0.2 to 0.6 of it, copying included, from 128 channels on; with fewer, copying eats the gain.
"""

import onnx_ir as ir

from backends.tensor import Array
from graphs.large_weights import computed
from graphs.prepare.convolution import Convolution, read_convolution
from graphs.prepare.nodes import add_sizes, add_tensor, describe, put
from toolkit.convert.onnx_layers import Layer
from toolkit.convert.onnx_weights import let_go

LEAST_CHANNELS = 128


def unfold(graph: ir.Graph, layer: Layer) -> Layer | None:
    """Put a Gemm over copied rows in the place of a Conv, under its name. None where that gains nothing.

    Only for full convolutions of one image at a time, whose step is 1 or that of their kernel.
    """
    conv, output = read_convolution(layer.node), layer.node.outputs[0]
    if conv is None or conv.of[0] != 1 or conv.of[1] < LEAST_CHANNELS:
        return None
    if not conv.makes_patches and conv.steps != (1, 1):
        return None
    name = str(output.name)
    nodes = _patches(graph, conv, name) if conv.makes_patches else _windows(graph, conv, name)
    sizes = add_sizes(graph, f"{name}.places", (conv.made[2] * conv.made[3], -1))
    nodes.append(ir.node("Reshape", [nodes[-1].outputs[0], sizes], name=f"{name}.row_a_place"))
    for node in nodes:
        node.outputs[0].name, node.outputs[0].type = f"{node.name}.out", conv.x.type

    outputs, depth = conv.made[1], conv.of[1] * conv.kernel[0] * conv.kernel[1]
    by_place = computed((outputs, depth), conv.values, lambda: _by_place(conv.values, outputs))
    weight = add_tensor(graph, f"{name}.by_place", by_place)
    inputs = [nodes[-1].outputs[0], weight, *layer.node.inputs[2:]]
    gemm = ir.node("Gemm", inputs, {"transB": 1}, name=layer.name)
    describe(gemm.outputs[0], f"{name}.rows", output, (conv.made[2] * conv.made[3], outputs))
    back = (1, *conv.made[2:], outputs)
    last = ir.node("Reshape", [gemm.outputs[0], add_sizes(graph, f"{name}.back", back)], name=f"{name}.unfolded")
    describe(last.outputs[0], f"{name}.last", output, back)
    turned = ir.node("Transpose", last.outputs, {"perm": [0, 3, 1, 2]}, name=f"{name}.map")
    put(graph, layer.node, [*nodes, gemm, last, turned])
    return Layer(gemm, True, weight, 0)


def _windows(graph: ir.Graph, conv: Convolution, name: str) -> list[ir.Node]:
    """What each place sees: its window's pixels, by row and column, each with its channels together."""
    nodes = [ir.node("Transpose", [conv.x], {"perm": [0, 2, 3, 1]}, name=f"{name}.pixels")]
    if any(conv.pads):
        top, left, bottom, right = conv.pads
        around = add_sizes(graph, f"{name}.around", (0, top, left, 0, 0, bottom, right, 0))
        nodes.append(ir.node("Pad", [nodes[-1].outputs[0], around], name=f"{name}.padded"))
    if conv.kernel == (1, 1):
        return nodes
    source, axes = nodes[-1].outputs[0], add_sizes(graph, f"{name}.axes", (1, 2))
    seen = []
    for row in range(conv.kernel[0]):
        for column in range(conv.kernel[1]):
            start = add_sizes(graph, f"{name}.from{row}.{column}", (row, column))
            end = add_sizes(graph, f"{name}.to{row}.{column}", (row + conv.made[2], column + conv.made[3]))
            nodes.append(ir.node("Slice", [source, start, end, axes], name=f"{name}.seen{row}.{column}"))
            seen.append(nodes[-1].outputs[0])
    return [*nodes, ir.node("Concat", seen, {"axis": 3}, name=f"{name}.together")]


def _patches(graph: ir.Graph, conv: Convolution, name: str) -> list[ir.Node]:
    """What each place sees: its patch, as depth."""
    nodes: list[ir.Node] = []
    size, source = conv.kernel[0], conv.x
    used = (conv.made[2] * size, conv.made[3] * size)
    if used != conv.of[2:]:  # the last rows and columns make no patch
        ranges = (("from", (0, 0)), ("to", used), ("axes", (2, 3)))
        bounds = [add_sizes(graph, f"{name}.{what}", at) for what, at in ranges]
        nodes.append(ir.node("Slice", [source, *bounds], name=f"{name}.used"))
        source = nodes[-1].outputs[0]
    nodes.append(ir.node("SpaceToDepth", [source], {"blocksize": size}, name=f"{name}.patches"))
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": [0, 2, 3, 1]}, name=f"{name}.pixels"))
    return nodes


def _by_place(kernel: ir.TensorProtocol, outputs: int) -> Array:
    """A kernel as rows, (outputs, what a place sees)."""
    # A copy even where a kernel of one pixel has this order already: what it is copied from is unmapped.
    rows: Array = kernel.numpy().transpose(0, 2, 3, 1).copy().reshape(outputs, -1)
    let_go(kernel)
    return rows
