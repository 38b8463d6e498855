"""Passes over operators that the converter reads wrongly or that TFLite has no kernel for, and over large layers."""

import math

import numpy as np
import onnx_ir as ir

from backends.tensor import filler
from graphs.onnx.readers import constant, read_linear, static_shape
from graphs.onnx.rewriting import add_constant, add_sizes, new_node, replace_node, set_value_info
from graphs.onnx.sizes import depends_on_values, most_along
from graphs.onnx.weights import lazy_tensor
from graphs.passes.registry import graph_pass

_SMALL = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16)
_ARITHMETIC = ("Abs", "Add", "Clip", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Relu", "Sign", "Sub", "Sum", "Where")
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_OPERATORS = frozenset((*_ARITHMETIC, *_COMPARISONS))


@graph_pass("lowering", tolerance=0.0)
def widen_small_integers(model: ir.Model) -> tuple[ir.Model, bool]:
    """Compute every element-wise operator on int8, uint8 and int16 in int32.

    TFLite knows such tensors only as quantized ones: without a scale its kernels abort the process, or are missing. The
    results are the same, bit for bit: casting back wraps around as the small type does.
    """
    found = [node for node in model.graph if node.op_type in _OPERATORS and any(map(_is_small, node.inputs))]
    for node in found:
        for i, value in enumerate(node.inputs):
            if value is not None and _is_small(value):
                before = ir.node("Cast", [value], attributes={"to": ir.DataType.INT32})
                _describe(before.outputs[0], f"{value.name}_{node.name or node.outputs[0].name}_{i}_wide", value)
                before.outputs[0].dtype = ir.DataType.INT32
                model.graph.insert_before(node, before)
                node.replace_input_with(i, before.outputs[0])
        for output in node.outputs:
            if _is_small(output):
                _narrow(model.graph, node, output)
    return model, bool(found)


def _narrow(graph: ir.Graph, node: ir.Node, output: ir.Value) -> None:
    assert output.dtype is not None  # _is_small
    after = ir.node("Cast", [output], attributes={"to": output.dtype})
    name, result = str(output.name), after.outputs[0]
    _describe(result, name, output)
    result.dtype = output.dtype
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    after.replace_input_with(0, output)
    output.name, output.dtype = f"{name}_wide", ir.DataType.INT32
    graph.insert_after(node, after)


def _describe(value: ir.Value, name: str, like: ir.Value) -> None:
    value.name, value.shape = name, like.shape


def _is_small(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in _SMALL


# Where no box of a network lies: beyond these, float32 has less than four numbers between two whole ones.
_APART = 1 << 21
# The smallest threshold that no runtime takes for 0.
_LEAST_THRESHOLD = 1e-30


@graph_pass("lowering", tolerance=0.0, after="write_out_einsum")
def state_boxes_for_search(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write the boxes and the threshold of each NonMaxSuppression as LiteRT's kernel needs them for the same results.

    Boxes of centre and size, which onnx2tf takes for corners, become corners. LiteRT chooses a box without an area
    again and again: such a box, which overlaps none, is put apart from all others. It leaves out boxes that overlap by
    the threshold, ONNX Runtime those that overlap by more: the threshold becomes the next larger number.
    """
    found = [node for node in model.graph if node.op_type == "NonMaxSuppression" and not node.domain]
    found = [node for node in found if (shape := static_shape(node.inputs[0])) is not None and shape[2] == 4]
    if any(depends_on_values(output) and _largest_sizes(output) is None for output in model.graph.outputs):
        return model, False  # no TFLite file can be made, and the reason names tensors of the graph as it is
    for node in found:
        shape, boxes = static_shape(node.inputs[0]), node.inputs[0]
        assert shape is not None and boxes is not None  # as above
        name, graph = str(node.outputs[0].name), model.graph
        made: list[ir.Node] = []

        def add(op_type: str, *inputs: ir.Value, start: str = name, made: list[ir.Node] = made) -> ir.Value:
            attributes = {"axis": 2} if op_type == "Concat" else None
            made.append(new_node(op_type, inputs, attributes, output=f"{start}_boxes_{len(made)}"))
            return made[-1].outputs[0]

        at = [add_sizes(graph, f"{name}_at_{number}", (number,)) for number in (0, 1, 2, 4)]
        one, other = (add("Slice", boxes, *ends, at[2]) for ends in ((at[0], at[2]), (at[2], at[3])))
        if node.attributes.get_int("center_point_box", 0):
            half = add("Mul", other, add_constant(graph, f"{name}_half", np.array(0.5, np.float32)))
            one, other = add("Sub", one, half), add("Add", one, half)
            boxes = add("Concat", one, other)
            node.attributes["center_point_box"] = ir.AttrInt64("center_point_box", 0)
        sides = add("Abs", add("Sub", other, one))
        shorter = add("Min", *(add("Slice", sides, *ends, at[2]) for ends in (at[:2], at[1:3])))
        has_area = add("Greater", shorter, add_constant(graph, f"{name}_zero", np.array(0, np.float32)))
        corner = _APART + 2 * np.arange(shape[1], dtype=np.float32)
        apart = np.stack([corner, corner, corner + 1, corner + 1], axis=1)[None]
        node.replace_input_with(0, add("Where", has_area, boxes, add_constant(graph, f"{name}_apart", apart)))
        graph.insert_before(node, made)
        threshold = constant(node.inputs[3]) if len(node.inputs) > 3 else np.zeros(1, np.float32)
        if threshold is not None:
            larger = np.clip(np.nextafter(threshold.astype(np.float32), np.float32(2)), _LEAST_THRESHOLD, 1)
            node.resize_inputs(max(4, len(node.inputs)))
            node.replace_input_with(3, add_constant(graph, f"{name}_threshold", larger.astype(np.float32)))
    return model, bool(found)


@graph_pass("lowering", tolerance=0.0, after="state_boxes_for_search")
def fill_found_rows(model: ir.Model) -> tuple[ir.Model, bool]:
    """Fill outputs that have as many rows as a NonMaxSuppression finds up to the largest number of rows.

    A TFLite file has fixed sizes. The rows after those that were found hold the number of `filler`.
    """
    found = [(value, sizes) for value in model.graph.outputs if (sizes := _largest_sizes(value)) is not None]
    for output, sizes in found:
        name, node = str(output.name), output.producer()
        assert output.shape is not None and output.dtype is not None and node is not None  # an output of a node
        (axis,) = (at for at, size in enumerate(output.shape) if not isinstance(size, int))
        dtype = output.dtype.numpy()
        rows = add_constant(model.graph, f"{name}_fillers", np.full(sizes, filler(dtype), dtype))
        joined = new_node("Concat", [output, rows], {"axis": axis}, output=f"{name}_filled")
        places = [
            add_sizes(model.graph, f"{name}_{what}", (at,))
            for what, at in (("from", 0), ("to", sizes[axis]), ("along", axis))
        ]
        first = new_node("Slice", [joined.outputs[0], *places], output=f"{name}_first")
        output.name = f"{name}_found"
        set_value_info(first.outputs[0], name, output, sizes)
        model.graph.insert_after(node, [joined, first])
        model.graph.outputs[list(model.graph.outputs).index(output)] = first.outputs[0]
    return model, bool(found)


def _largest_sizes(output: ir.Value) -> tuple[int, ...] | None:
    """Return the largest sizes of an output with as many rows as are found, if they are known, or None."""
    if not depends_on_values(output) or output.shape is None:
        return None
    sizes = [most for size in output.shape if (most := most_along(size)) is not None]
    return tuple(sizes) if len(sizes) == len(output.shape) else None


# The largest absolute value of a tiny bound. The converter was seen to round bounds of 1e-12 and 1e-30 to 0.
_TINY = 1e-3


@graph_pass("lowering", tolerance=0.0, after="write_out_layer_norm")
def keep_small_bounds(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write Max(x, c) and Clip(x, c, most) as -Min(-x, -c), and a Min with `most`, where c is tiny and one number.

    Such a bound keeps a division from dividing by 0, as in PyTorch's normalize. onnx2tf takes it for 0 and the operator
    for a ReLU, so that an input of zeros becomes NaN.
    """
    found = [(node, at) for node in model.graph if (at := _bound(node)) is not None]
    for node, at in found:
        bound, x = node.inputs[at], node.inputs[1 - at]
        value = constant(bound)
        assert x is not None and value is not None  # _bound
        name = str(node.outputs[0].name)
        turned = new_node("Neg", [x], output=f"{name}_part_0")
        bounds = [turned.outputs[0], add_constant(model.graph, f"{name}_bound", -value)]
        least = new_node("Min", bounds, output=f"{name}_part_1")
        new = [turned, least, new_node("Neg", least.outputs, output=f"{name}_part_2")]
        if node.op_type == "Clip" and len(node.inputs) > 2 and node.inputs[2] is not None:
            new.append(ir.node("Min", [new[-1].outputs[0], node.inputs[2]]))
        replace_node(model.graph, node, new)
    return model, bool(found)


def _bound(node: ir.Node) -> int | None:
    """Return the index of the input of a node that is a tiny lower bound."""
    if node.op_type not in ("Max", "Clip") or len(node.inputs) < 2 or (node.op_type == "Max" and len(node.inputs) > 2):
        return None
    for at in (1,) if node.op_type == "Clip" else (1, 0):
        value = constant(node.inputs[at])
        if value is not None and value.size == 1 and value.dtype.kind == "f" and 0 < abs(float(value.item())) < _TINY:
            return at
    return None


@graph_pass("lowering", tolerance=0.0, after="write_out_log_softmax")
def slice_uneven_splits(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write every Split whose constant sizes are not all the same as Slices: onnx2tf lowers only even splits."""
    found = [(node, sizes) for node in model.graph if (sizes := _uneven(node)) is not None]
    for node, sizes in found:
        x, axis = node.inputs[0], node.attributes.get_int("axis", 0)
        assert x is not None and x.shape is not None  # an operator's own, in a graph with its shapes
        axis %= len(x.shape)
        ends = np.cumsum(sizes).tolist()
        for output, start, end in zip(node.outputs, [0, *ends], ends, strict=False):
            name = str(output.name)
            places = [add_sizes(model.graph, f"{name}_{what}", (at,)) for what, at in (("start", start), ("end", end))]
            part = ir.node("Slice", [x, *places, add_sizes(model.graph, f"{name}_axis", (axis,))])
            output.name = None
            set_value_info(part.outputs[0], name, output)
            model.graph.insert_before(node, part)
            output.replace_all_uses_with(part.outputs[0], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    return model, bool(found)


def _uneven(node: ir.Node) -> list[int] | None:
    """Return the sizes of the parts of a Split, if they are known, differ, and none is 0."""
    if node.op_type != "Split" or node.inputs[0] is None or (shape := static_shape(node.inputs[0])) is None:
        return None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = constant(node.inputs[1])
        parts = [] if sizes is None else [int(size) for size in sizes]
    else:  # num_outputs parts of one size, the last with the rest
        whole, count = shape[node.attributes.get_int("axis", 0)], len(node.outputs)
        most = -(-whole // count)
        parts = [most] * (count - 1) + [whole - most * (count - 1)]
    return parts if len(set(parts)) > 1 and min(parts) > 0 else None


def split_large_gemm(model: ir.Model, limit_bytes: int) -> tuple[ir.Model, bool]:
    """Split every Gemm with a constant matrix and bias of more than limit_bytes, into parts of nearly the same size.

    A graph is lowered in slices of whole nodes, so no node may have more weights than a slice. Each output is the same
    sum of the same products as before, and weights are quantized by output. Where ranges of activations are fixed
    beforehand, each part has a range of its own.
    """
    return model, bool(sum(_split(model.graph, node, limit_bytes) for node in list(model.graph)))


def _split(graph: ir.Graph, node: ir.Node, limit_bytes: int) -> bool:
    """Gemm(x, w, b) -> Concat(Gemm(x, w[rows], b[rows]), ...)"""
    linear = read_linear(node) if node.op_type == "Gemm" else None
    if linear is None:
        return False
    outputs = linear.features_out
    constants = [linear.tensor]
    if linear.bias is not None:
        vector = ir.convenience.get_const_tensor(linear.bias)
        if vector is None or tuple(vector.shape.numpy()) != (outputs,):
            return False
        constants.append(vector)
    most = limit_bytes // math.ceil(sum(tensor.nbytes for tensor in constants) / outputs)
    if not 0 < most < outputs:
        return False
    parts: list[ir.Node] = []
    rows = math.ceil(outputs / math.ceil(outputs / most))
    for start in range(0, outputs, rows):
        end = min(start + rows, outputs)
        values = [_part(graph, linear.weight, start, end, linear.output_axis)]
        if linear.bias is not None:
            values.append(_part(graph, linear.bias, start, end, 0))
        name = f"{node.name}.rows{len(parts)}"
        parts.append(new_node("Gemm", [linear.x, *values], linear.attributes, name=name, output=f"{name}.out"))
    joined = ir.node("Concat", [part.outputs[0] for part in parts], {"axis": 1}, name=f"{node.name}.join")
    replace_node(graph, node, [*parts, joined])
    for value in (linear.weight, linear.bias):
        if value is not None and value.is_initializer() and value.name is not None and not value.uses():
            del graph.initializers[value.name]
    return True


def _part(graph: ir.Graph, value: ir.Value, start: int, end: int, axis: int) -> ir.Value:
    """Return entries start to end of a constant along an axis, read when they are written; equal parts are shared."""
    whole = ir.convenience.get_const_tensor(value)
    assert whole is not None  # _split
    name = f"{value.name}.rows{start}-{end}"
    if name not in graph.initializers:
        sizes = [int(size) for size in whole.shape.numpy()]
        sizes[axis] = end - start
        chosen = (slice(None),) * axis + (slice(start, end),)
        tensor = lazy_tensor(tuple(sizes), whole, lambda: whole.numpy()[chosen])
        tensor.name = name
        kind = ir.TensorType(whole.dtype)
        graph.initializers.add(ir.Value(name=name, const_value=tensor, type=kind, shape=ir.Shape(sizes)))
    return graph.initializers[name]
