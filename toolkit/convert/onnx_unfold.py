"""Convolutions of an ONNX graph as dense layers of what each place sees, for recipes that quantize activations.

ONNX Runtime's integer convolution took 2 to 6 times the time of its float32 one. Its integer product of rows that were
copied together first took 0.2 to 0.6 of it, copying included, from 128 channels on; with fewer, copying eats the gain.
"""

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.large_weights import computed
from graphs.prepare.nodes import add_sizes, add_tensor, describe, put
from graphs.prepare.rewriting import static_shape
from toolkit.convert.onnx_layers import Layer
from toolkit.convert.onnx_weights import let_go

LEAST_CHANNELS = 128


def unfold(graph: ir.Graph, layer: Layer) -> Layer | None:
    """Put a Gemm over copied rows in the place of a Conv, under its name. None where that gains nothing.

    Only for full convolutions of maps of known size, one image at a time, whose step is 1 or that of their kernel.
    """
    node, shape, made = layer.node, static_shape(layer.input), static_shape(layer.node.outputs[0])
    sizes = layer.weight.shape
    if shape is None or made is None or sizes is None or len(shape) != 4 or shape[0] != 1:
        return None
    outputs, channels, *kernel = (int(size) for size in sizes.numpy())
    steps = list(node.attributes.get_ints("strides", (1, 1)))
    pads = list(node.attributes.get_ints("pads", (0, 0, 0, 0)))
    if (
        channels < LEAST_CHANNELS
        or node.attributes.get_int("group", 1) != 1
        or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
        or set(node.attributes.get_ints("dilations", (1, 1))) != {1}
    ):
        return None
    if steps == [1, 1]:
        rows = _windows(graph, layer, kernel, pads, made)
    elif steps == kernel and kernel[0] == kernel[1] and not any(pads):
        rows = _patches(graph, layer, kernel[0], shape, made)
    else:
        return None
    whole, depth = layer.weight.const_value, channels * kernel[0] * kernel[1]
    assert whole is not None  # layers() looks for weights

    def by_place() -> Array:
        values: Array = np.ascontiguousarray(whole.numpy().transpose(0, 2, 3, 1)).reshape(outputs, depth)
        let_go(whole)
        return values

    name = str(node.outputs[0].name)
    weight = add_tensor(graph, f"{name}.by_place", computed((outputs, depth), whole, by_place))
    bias = [layer.bias] if layer.bias is not None else []
    inputs = [rows[-1].outputs[0], weight, *bias]
    gemm = ir.node("Gemm", inputs, {"transB": 1}, name=layer.name)
    describe(gemm.outputs[0], f"{name}.rows", node.outputs[0], (made[2] * made[3], outputs))
    back = (1, made[2], made[3], outputs)
    last = ir.node("Reshape", [gemm.outputs[0], add_sizes(graph, f"{name}.back", back)], name=f"{name}.unfolded")
    describe(last.outputs[0], f"{name}.last", node.outputs[0], back)
    put(
        graph, node, [*rows, gemm, last, ir.node("Transpose", last.outputs, {"perm": [0, 3, 1, 2]}, name=f"{name}.map")]
    )
    return Layer(gemm, True, weight, 0)


def _windows(graph: ir.Graph, layer: Layer, kernel: list[int], pads: list[int], made: tuple[int, ...]) -> list[ir.Node]:
    """What each place sees: its window's pixels, by row and column, each with its channels together."""
    name, x = str(layer.node.outputs[0].name), layer.input
    nodes = [ir.node("Transpose", [x], {"perm": [0, 2, 3, 1]}, name=f"{name}.pixels")]
    if any(pads):
        around = add_sizes(graph, f"{name}.around", (0, pads[0], pads[1], 0, 0, pads[2], pads[3], 0))
        nodes.append(ir.node("Pad", [nodes[-1].outputs[0], around], name=f"{name}.padded"))
    source, axes = nodes[-1].outputs[0], add_sizes(graph, f"{name}.axes", (1, 2))
    seen = []
    for row in range(kernel[0] if kernel != [1, 1] else 0):
        for column in range(kernel[1]):
            start = add_sizes(graph, f"{name}.from{row}.{column}", (row, column))
            end = add_sizes(graph, f"{name}.to{row}.{column}", (row + made[2], column + made[3]))
            nodes.append(ir.node("Slice", [source, start, end, axes], name=f"{name}.seen{row}.{column}"))
            seen.append(nodes[-1].outputs[0])
    if seen:
        nodes.append(ir.node("Concat", seen, {"axis": 3}, name=f"{name}.together"))
    return _named(graph, layer, nodes, made)


def _patches(graph: ir.Graph, layer: Layer, size: int, shape: tuple[int, ...], made: tuple[int, ...]) -> list[ir.Node]:
    """What each place sees: its patch, as depth."""
    name, nodes = str(layer.node.outputs[0].name), []
    source, used = layer.input, (made[2] * size, made[3] * size)
    if used != shape[2:]:  # the last rows and columns make no patch
        bounds = [
            add_sizes(graph, f"{name}.{what}", at) for what, at in (("from", (0, 0)), ("to", used), ("axes", (2, 3)))
        ]
        nodes.append(ir.node("Slice", [source, *bounds], name=f"{name}.used"))
        source = nodes[-1].outputs[0]
    nodes.append(ir.node("SpaceToDepth", [source], {"blocksize": size}, name=f"{name}.patches"))
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": [0, 2, 3, 1]}, name=f"{name}.pixels"))
    return _named(graph, layer, nodes, made)


def _named(graph: ir.Graph, layer: Layer, nodes: list[ir.Node], made: tuple[int, ...]) -> list[ir.Node]:
    """The nodes with names for what they make, and a row a place at the end."""
    name = str(layer.node.outputs[0].name)
    sizes = add_sizes(graph, f"{name}.places", (made[2] * made[3], -1))
    nodes.append(ir.node("Reshape", [nodes[-1].outputs[0], sizes], name=f"{name}.row_a_place"))
    for node in nodes:
        node.outputs[0].name, node.outputs[0].type = f"{node.name}.out", layer.input.type
    return nodes
