"""Passes over the axes of tensors: at the inputs and outputs, between linear layers, and at the borders of maps."""

import math

import numpy as np
import onnx_ir as ir

from backends.tensor import TO_NCHW
from graphs.onnx.readers import constant, read_permutation, reshape_of, static_shape
from graphs.onnx.rewriting import add_constant, add_sizes, new_node, remove_unused_nodes, replace_node, set_value_info
from graphs.passes.registry import graph_pass

# Operators that onnx2tf computes with channels last on tensors of three axes.
_OF_ROWS = frozenset(("Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"))
_SWAP_LAST_AXES = (0, 2, 1)
_TO_CHANNELS_FIRST = (_SWAP_LAST_AXES, TO_NCHW)


@graph_pass("lowering", tolerance=0.0, after="fill_found_rows")
def pin_io_layout(model: ir.Model) -> tuple[ir.Model, bool]:
    """Put two reshapes, over a flat row of values, behind or before each tensor whose axes the converter would move.

    onnx2tf keeps maps channels last inside the graph. Of four axes the order in the file is known, see Binding; a
    tensor with other axes must come and leave as the graph states it, and at a reshape the converter puts the axes
    back. Of three axes it moves those of a few operators alone; the tokens of a transformer stay as they are. A
    Transpose that could be from or to channels last it takes for one of its own: it moves it behind later operators,
    out of the graph, or into an input.
    """
    changed = False
    for value in list(model.graph.inputs):
        if _goes_into_products_turned(value):
            _reshape_input(model.graph, value)
            changed = True
    rows = any(node.op_type in _OF_ROWS and len(static_shape(node.outputs[0]) or ()) == 3 for node in model.graph)
    for i, output in enumerate(model.graph.outputs):
        shape = static_shape(output)
        if shape is None or output.producer() is None:
            continue
        if len(shape) > 4 or (len(shape) == 3 and rows) or _was_turned(output):
            model.graph.outputs[i] = _reshaped_output(model.graph, output, shape)
            changed = True
    return model, changed


def _was_turned(value: ir.Value) -> bool:
    """Return whether a Transpose to channels first makes a value, with only element-wise operators after it."""
    node = value.producer()
    while node is not None:
        if node.op_type == "Transpose":
            return read_permutation(node) in _TO_CHANNELS_FIRST
        sources = [source for source in node.inputs if source is not None and source.const_value is None]
        if len(sources) != 1 or static_shape(sources[0]) != static_shape(node.outputs[0]):
            return False
        node = sources[0].producer()
    return False


def _goes_into_products_turned(value: ir.Value) -> bool:
    """Return whether every reader of an input of three axes swaps its last two axes, and feeds only products."""
    readers = [use.node for use in value.uses()]
    return (
        len(static_shape(value) or ()) == 3
        and bool(readers)
        and all(
            read_permutation(reader) == _SWAP_LAST_AXES
            and all(use.node.op_type == "MatMul" for use in reader.outputs[0].uses())
            for reader in readers
        )
    )


def _reshape_input(graph: ir.Graph, value: ir.Value) -> None:
    name, shape, readers = str(value.name), static_shape(value), [(use.node, use.idx) for use in value.uses()]
    assert shape is not None  # callers look at it
    row, back = _over_a_row(graph, value, shape, name)
    back.outputs[0].name = f"{name}_axes"
    for node, index in readers:
        node.replace_input_with(index, back.outputs[0])
    graph.insert_before(graph[0], [row, back])


def _reshaped_output(graph: ir.Graph, output: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    name = str(output.name)
    output.name = f"{name}_axes"
    row, back = _over_a_row(graph, output, shape, name)
    set_value_info(back.outputs[0], name, output)
    graph.extend([row, back])
    return back.outputs[0]


def _over_a_row(graph: ir.Graph, value: ir.Value, shape: tuple[int, ...], name: str) -> tuple[ir.Node, ir.Node]:
    """Return a node that makes a flat row of a value, and a node that gives the row the axes of the value again."""
    row = new_node("Reshape", [value, add_sizes(graph, f"{name}_row", (math.prod(shape),))], output=f"{name}_flat")
    return row, ir.node("Reshape", [row.outputs[0], add_sizes(graph, f"{name}_stated", shape)])


# After onnxsim, which infers the shapes that this pass reads.
@graph_pass("export", after="simplify")
def keep_rows(model: ir.Model) -> tuple[ir.Model, bool]:
    """Move GELU before a Reshape, merge neighbouring Reshapes, and scale the columns of the matrix itself.

    A linear layer on a map of rank 4 is Reshape, Gemm, Reshape. Between two of them stand a GELU and a normalization,
    whose results do not depend on the shape; TFLite copies the widest map of the network for a Reshape that others
    read.
    """
    steps = (_gelu_first, _one_reshape, _scaled_columns)
    # In running order, and each step before the next: what one leaves is what another looks for.
    changed = sum(step(model.graph, node) for step in steps for node in list(model.graph))
    if changed:
        remove_unused_nodes(model)
    return model, bool(changed)


def _gelu_first(graph: ir.Graph, node: ir.Node) -> bool:
    """Gelu(Reshape(x)) -> Reshape(Gelu(x)) for the rows of a matrix x

    Where x has other axes, onnx2tf drops the Reshape between the GELU and a convolution.
    """
    reshape = reshape_of(node.inputs[0]) if node.op_type == "Gelu" else None
    if reshape is None or len(reshape.outputs[0].uses()) != 1:
        return False
    x, sizes, output = reshape.inputs[0], reshape.inputs[1], node.outputs[0]
    if len(static_shape(x) or (0, 0)) != 2:
        return False
    gelu = ir.node("Gelu", [x], dict(node.attributes), name=node.name)
    set_value_info(gelu.outputs[0], f"{output.name}.rows", x)  # the steps after this one read its shape
    back = ir.node("Reshape", [gelu.outputs[0], sizes], name=f"{node.name}.reshape")
    replace_node(graph, node, [gelu, back])
    return True


def _one_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape(Reshape(x)) -> Reshape(x), or x where that is its shape"""
    first = reshape_of(node.inputs[0]) if node.op_type == "Reshape" else None
    shape = static_shape(node.outputs[0])
    if first is None or shape is None:
        return False
    x = first.inputs[0]
    if shape == static_shape(x) and x is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(x)
        return True
    sizes = add_sizes(graph, f"{node.name}.sizes", shape)
    replace_node(graph, node, [ir.node("Reshape", [x, sizes], name=node.name)])
    return True


def _scaled_columns(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape(Mul(Reshape(x), scale)), a matrix again with a factor for each column -> Mul(x, Reshape(scale))"""
    product = node.inputs[0].producer() if node.op_type == "Reshape" and node.inputs[0] is not None else None
    if product is None or product.op_type != "Mul" or len(product.outputs[0].uses()) != 1:
        return False
    for reshaped, scale in (product.inputs, tuple(reversed(product.inputs))):
        first = reshape_of(reshaped)
        if first is None or scale is None or constant(scale) is not None:
            continue
        x, factors, wide = first.inputs[0], static_shape(scale), static_shape(reshaped)
        shape = static_shape(x)
        if shape is None or len(shape) != 2 or static_shape(node.outputs[0]) != shape or wide is None:
            continue
        columns = shape[1]
        if not factors or len(factors) > len(wide) or wide[-1] != columns or factors[-1] != columns:
            continue
        if math.prod(factors) != columns:
            continue
        sizes = add_sizes(graph, f"{node.name}.row", (1, columns))
        row = new_node("Reshape", [scale, sizes], name=f"{node.name}.scale", output=f"{scale.name}.row")
        replace_node(graph, node, [row, ir.node("Mul", [x, row.outputs[0]], name=product.name)])
        return True
    return False


@graph_pass("lowering", tolerance=0.0, after="transposed_to_conv")
def reflect_by_slices(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every Pad that reflects at most one element on each side of a map whose shape is known, as slices.

    TFLite's MIRROR_PAD runs on one core, and XNNPACK has no such operator: it splits the part of the graph that XNNPACK
    runs in two. Slices and concatenations do not. A wider border would need as many slices as it has pixels.
    """
    changed = sum(_rewrite(model.graph, node) for node in list(model.graph))
    return model, bool(changed)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "reflect":
        return False
    borders, value, shape = _borders(node), node.inputs[0], static_shape(node.inputs[0])
    if not borders or value is None or shape is None:
        return False
    made: list[ir.Node] = []
    for axis, (before, after) in borders.items():  # no axis twice: the sizes along it are those of the input
        parts = [value]
        if before:
            parts.insert(0, _one(graph, made, value, axis, 1, f"{node.name}.before{axis}"))
        if after:
            parts.append(_one(graph, made, value, axis, shape[axis] - 2, f"{node.name}.after{axis}"))
        name = f"{node.name}.axis{axis}"
        made.append(new_node("Concat", parts, {"axis": axis}, name=name, output=f"{name}.out"))
        value = made[-1].outputs[0]
    replace_node(graph, node, made)
    return True


def _borders(node: ir.Node) -> dict[int, tuple[int, int]]:
    """Return {axis: (elements added before, after)}, or nothing where any border is wider than one element."""
    shape, pads = static_shape(node.inputs[0]), constant(node.inputs[1])
    if shape is None or pads is None:
        return {}
    named = node.inputs[3] if len(node.inputs) > 3 else None
    given = np.arange(len(shape)) if named is None else constant(named)
    if given is None:
        return {}
    axes = [int(axis) % len(shape) for axis in given]
    halves = np.split(pads.astype(int), 2)
    borders = {axis: (int(b), int(e)) for axis, b, e in zip(axes, *halves, strict=True) if b or e}
    small = all(0 <= border <= 1 for both in borders.values() for border in both)
    return borders if small and all(shape[axis] > 1 for axis in borders) else {}


def _one(graph: ir.Graph, made: list[ir.Node], value: ir.Value, axis: int, index: int, name: str) -> ir.Value:
    """Return the slice of one element at `index` of an axis."""
    bounds = [
        add_constant(graph, f"{name}.{what}", np.array([number], np.int64))
        for what, number in (("start", index), ("end", index + 1), ("axis", axis))
    ]
    made.append(new_node("Slice", [value, *bounds], name=name, output=f"{name}.out"))
    return made[-1].outputs[0]
