"""Passes over operators that read a map at other places: Slice with a negative step, Resize and GridSample."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from backends.tensor import Array
from graphs.onnx.file import IR_VERSION, OPSET
from graphs.onnx.readers import constant, static_shape
from graphs.onnx.rewriting import Attribute, add_constant, add_sizes, new_node, replace_node
from graphs.passes.registry import graph_pass


@graph_pass("lowering", tolerance=0.0, after="write_out_prelu")
def part_backward_slices(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write a Slice with negative steps as one operator for each of these axes, and a Slice for all others.

    onnx2tf lowers a Slice that reverses one whole axis and does nothing else. A reversed part of an axis becomes a
    Gather of its places.
    """
    found = [(node, parts) for node in model.graph if (parts := _backward_parts(node)) is not None]
    for node, (forward, backward) in found:
        name, x = str(node.outputs[0].name), node.inputs[0]
        assert x is not None  # _backward_parts
        made: list[ir.Node] = []
        if forward:
            values = [
                add_sizes(model.graph, f"{name}_{what}", tuple(numbers))
                for what, numbers in zip(("starts", "ends", "axes", "steps"), zip(*forward, strict=True), strict=True)
            ]
            made.append(new_node("Slice", [x, *values], output=f"{name}_forward"))
        for axis, places, size in backward:
            given = made[-1].outputs[0] if made else x
            inputs = [given]
            attributes: dict[str, Attribute] = {}
            if places == list(range(size - 1, -1, -1)):
                numbers = {"last": -1, "end": -(2**31), "axis": axis, "step": -1}
                inputs += [add_sizes(model.graph, f"{name}_{axis}_{what}", (n,)) for what, n in numbers.items()]
            else:
                inputs.append(add_constant(model.graph, f"{name}_{axis}_places", np.array(places, np.int64)))
                attributes["axis"] = axis
            made.append(new_node("Gather" if attributes else "Slice", inputs, attributes, output=f"{name}_{axis}"))
        replace_node(model.graph, node, made)
    return model, bool(found)


_Forward = list[tuple[int, int, int, int]]
_Backward = list[tuple[int, list[int], int]]


def _backward_parts(node: ir.Node) -> tuple[_Forward, _Backward] | None:
    """Return what a Slice does with each axis, or None if it has no negative step or onnx2tf lowers it as it is.

    The first list has (start, end, axis, step) for each axis that is read forward, the second (axis, places, size) for
    each other axis.
    """
    shape = static_shape(node.inputs[0]) if node.op_type == "Slice" else None
    values = [constant(value) for value in node.inputs[1:]]
    if shape is None or len(values) < 4 or any(value is None for value in values[:2]) or values[3] is None:
        return None
    starts, ends, steps = (np.asarray(values[i]).tolist() for i in (0, 1, 3))
    axes = list(range(len(starts))) if values[2] is None else [int(axis) % len(shape) for axis in values[2]]
    forward: _Forward = []
    backward: _Backward = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        if step > 0:
            forward.append((start, end, axis, step))
            continue
        first = min(max(start + size if start < 0 else start, 0), size - 1)
        last = min(max(end + size if end < 0 else end, -1), size - 1)
        backward.append((axis, list(range(first, last, step)), size))
    whole = [places == list(range(size - 1, -1, -1)) for _, places, size in backward]
    if not backward or not all(places for _, places, _ in backward) or (whole == [True] and not forward):
        return None
    return forward, backward


@graph_pass("lowering", tolerance=1e-5, after="part_backward_slices")
def smooth_resize_to_products(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write a Resize with antialias that makes a map smaller as products with a matrix for each of its two last axes.

    onnx2tf leaves the antialias out.
    """
    found = [(node, sizes) for node in model.graph if (sizes := _smooth_sizes(node)) is not None]
    for node, (before, after) in found:
        name, x = str(node.outputs[0].name), node.inputs[0]
        assert x is not None  # _smooth_sizes
        made: list[ir.Node] = []
        for axis in (2, 3):
            if before[axis] == after[axis]:
                continue
            matrix = _resize_matrix(node, axis, before[axis], after[axis])
            given = made[-1].outputs[0] if made else x
            value = add_constant(model.graph, f"{name}_{axis}_matrix", (matrix if axis == 2 else matrix.T)[None, None])
            inputs = [value, given] if axis == 2 else [given, value]
            made.append(new_node("MatMul", inputs, output=f"{name}_{axis}"))
        replace_node(model.graph, node, made)
    return model, bool(found)


def _smooth_sizes(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the sizes of a map before and after a Resize with antialias that makes it smaller, or None."""
    if node.op_type != "Resize" or not node.attributes.get_int("antialias", 0):
        return None
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2]:
        return None
    if node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return None
    return (before, after) if any(new < old for old, new in zip(before, after, strict=True)) else None


def _resize_matrix(node: ir.Node, axis: int, before: int, after: int) -> Array:
    """Return the matrix (after, before) by which a Resize multiplies an axis: its result for the identity matrix."""
    kept = {
        name: attribute
        for name, attribute in node.attributes.items()
        if name not in ("axes", "keep_aspect_ratio_policy")
    }
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    attributes = [ir.to_proto(attribute) for attribute in kept.values()]
    if scales is not None and scales.size:
        axes = [int(one) % 4 for one in node.attributes.get_ints("axes", list(range(4)))]
        given = np.array([1, 1, dict(zip(axes, scales.tolist(), strict=True))[axis], 1], np.float32)
        inputs = ["identity", "", "given"]
    else:
        given = np.array([1, 1, after, before], np.int64)
        inputs = ["identity", "", "", "given"]
    resize = onnx.helper.make_node("Resize", inputs, ["matrix"])
    resize.attribute.extend(attributes)
    kinds = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("identity", "matrix")]
    graph = onnx.helper.make_graph(
        [resize], "matrix", kinds[:1], kinds[1:], [onnx.numpy_helper.from_array(given, "given")]
    )
    imports = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"identity": np.eye(before, dtype=np.float32)[None, None]})
    matrix: Array = result[0, 0]
    return matrix


@graph_pass("lowering", tolerance=0.0, after="smooth_resize_to_products")
def nearest_resize_to_gather(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write a Resize to the nearest pixel as a Gather along each of the two last axes, unless onnx2tf lowers it."""
    found = [(node, sizes) for node in model.graph if (sizes := _nearest_sizes(node)) is not None]
    for node, (before, after) in found:
        name, x = str(node.outputs[0].name), node.inputs[0]
        assert x is not None  # _nearest_sizes
        made: list[ir.Node] = []
        for axis in (2, 3):
            places = _resize_matrix(node, axis, before[axis], after[axis]).argmax(axis=1)
            given = made[-1].outputs[0] if made else x
            inputs = [given, add_constant(model.graph, f"{name}_{axis}_places", places.astype(np.int64))]
            made.append(new_node("Gather", inputs, {"axis": axis}, output=f"{name}_{axis}"))
        replace_node(model.graph, node, made)
    return model, bool(found)


def _nearest_sizes(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the sizes of a map before and after a Resize to the nearest pixel that onnx2tf does not lower, or None."""
    if node.op_type != "Resize" or node.attributes.get_string("mode", "nearest") != "nearest":
        return None
    places = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    lowered = ["floor", "round_prefer_floor", *(["round_prefer_ceil"] if places == "half_pixel" else [])]
    rounds = node.attributes.get_string("nearest_mode", "round_prefer_floor") in lowered
    if places == "tf_crop_and_resize" or (rounds and places in ("asymmetric", "half_pixel")):
        return None
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    fits = before is not None and after is not None and len(before) == 4 and before[:2] == after[:2]
    return (before, after) if fits and before is not None and after is not None else None


@graph_pass("lowering", tolerance=1e-5, after="nearest_resize_to_gather")
def reflect_grid(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write a GridSample that reflects places outside of the map as one whose places were reflected before.

    onnx2tf lowers no reflection. The borders are at -1 and 1 whether corners are aligned or not, and the places between
    the last pixel and the border have the value of that pixel. A cubic GridSample reflects each pixel instead: see
    write_out_cubic_grid.
    """
    found = [node for node in model.graph if _reflects(node)]
    for node in found:
        x, grid = node.inputs
        name = str(node.outputs[0].name)
        assert grid is not None and grid.dtype is not None  # an operator's own, in a graph with its shapes
        one, period, share = (
            add_constant(model.graph, f"{name}_{what}", np.array(value, grid.dtype.numpy()))
            for what, value in (("one", 1), ("period", 4), ("share", 0.25))
        )
        made: list[ir.Node] = []

        def add(op_type: str, *inputs: ir.Value, at: str = name, to: list[ir.Node] = made) -> ir.Value:
            to.append(new_node(op_type, inputs, output=f"{at}_place_{len(to)}"))
            return to[-1].outputs[0]

        distance = add("Abs", add("Add", grid, one))  # from the lower border
        turns = add("Mul", add("Floor", add("Mul", distance, share)), period)
        left = add("Sub", distance, turns)  # in [0, 4)
        place = add("Sub", add("Min", left, add("Sub", period, left)), one)
        attributes = {name: attribute for name, attribute in node.attributes.items() if name != "padding_mode"}
        sample = ir.Node("", "GridSample", [x, place], attributes.values(), num_outputs=1, name=node.name)
        sample.attributes["padding_mode"] = ir.AttrString("padding_mode", "border")
        replace_node(model.graph, node, [*made, sample])
    return model, bool(found)


def _reflects(node: ir.Node) -> bool:
    return (
        node.op_type == "GridSample"
        and node.attributes.get_string("padding_mode", "zeros") == "reflection"
        and node.attributes.get_string("mode", "linear") in ("linear", "bilinear", "nearest")
    )


# The weights of the four pixels around a place, each a cubic polynomial of the distance t to the second pixel: the
# coefficients of t ** 3, t ** 2, t and 1 for each pixel. The slope at a pixel is that of torch and ONNX, -0.75.
_CUBIC = np.array([[-0.75, 1.25, -1.25, 0.75], [1.5, -2.25, 1.5, -0.75], [-0.75, 0, 0.75, 0], [0, 1, 0, 0]], np.float32)
# A pixel's number is computed in float32, which has every whole number up to this one.
_MOST_PIXELS = 1 << 24


class _Nodes:
    """The nodes that take the place of one node, each with the constants that it reads."""

    def __init__(self, graph: ir.Graph, name: str) -> None:
        """name: the start of the names of the new tensors."""
        self.made: list[ir.Node] = []
        self._graph = graph
        self._name = name

    def add(self, op_type: str, *inputs: ir.Value | Array | float, **attributes: Attribute) -> ir.Value:
        """Add a node and return its output. Arrays among the inputs become constants, and numbers float32 constants."""
        output = f"{self._name}_{len(self.made)}"
        values = []
        for position, given in enumerate(inputs):
            if not isinstance(given, ir.Value):
                array = np.array(given, np.float32) if isinstance(given, int | float) else given
                given = add_constant(self._graph, f"{output}_{position}", array)
            values.append(given)
        self.made.append(new_node(op_type, values, attributes, output=output))
        return self.made[-1].outputs[0]

    def reshape(self, value: ir.Value, *sizes: int) -> ir.Value:
        """Add a Reshape and return its output."""
        return self.add("Reshape", value, np.array(sizes, np.int64))


@graph_pass("lowering", tolerance=2e-5, after="reflect_grid")
def write_out_cubic_grid(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write a cubic GridSample of maps as a Gather of the 16 pixels around each place, and their weighted sum.

    onnx2tf lowers no cubic GridSample. The tensors between have the sizes (places, 2, 4): the horizontal and the
    vertical axis of the map, and the four pixels along this axis.
    """
    found = [(node, sizes) for node in model.graph if (sizes := _cubic_sizes(node)) is not None]
    for node, (batch, channels, height, width, down, across) in found:
        x, grid = node.inputs
        assert x is not None and grid is not None  # _cubic_sizes
        nodes, places = _Nodes(model.graph, str(node.outputs[0].name)), batch * down * across
        is_aligned = bool(node.attributes.get_int("align_corners", 0))
        size = np.array([width, height], np.float32).reshape(1, 2, 1)
        place = nodes.add("Add", nodes.reshape(grid, places, 2, 1), 1)
        place = nodes.add("Mul", place, (size - 1 if is_aligned else size) / 2)
        if not is_aligned:
            place = nodes.add("Sub", place, 0.5)
        first = nodes.add("Floor", place)
        weight = _cubic_weights(nodes, nodes.add("Sub", place, first))
        pixel = nodes.add("Add", first, np.array([-1, 0, 1, 2], np.float32))
        padding = node.attributes.get_string("padding_mode", "zeros")
        if padding == "reflection":
            pixel = _reflected(nodes, pixel, size, is_aligned)
        inside = nodes.add("Min", nodes.add("Max", pixel, 0), size - 1)
        if padding == "zeros":
            is_inside = nodes.add("Equal", pixel, inside)
            weight = nodes.add("Mul", weight, nodes.add("Cast", is_inside, to=int(ir.DataType.FLOAT)))
        rows = nodes.add("Mul", inside, np.array([1, width], np.float32).reshape(1, 2, 1))
        number = nodes.reshape(_pairs(nodes, "Add", rows), places, 16)
        if batch > 1:
            before = np.repeat(np.arange(batch) * height * width, down * across)
            number = nodes.add("Add", number, before.astype(np.float32).reshape(-1, 1))
        pixels = nodes.reshape(nodes.add("Transpose", x, perm=[0, 2, 3, 1]), batch * height * width, channels)
        around = nodes.add("Gather", pixels, nodes.add("Cast", number, to=int(ir.DataType.INT64)), axis=0)
        result = nodes.add("MatMul", nodes.reshape(_pairs(nodes, "Mul", weight), places, 1, 16), around)
        nodes.add("Transpose", nodes.reshape(result, batch, down, across, channels), perm=[0, 3, 1, 2])
        replace_node(model.graph, node, nodes.made)
    return model, bool(found)


def _cubic_sizes(node: ir.Node) -> tuple[int, ...] | None:
    """Return the sizes of a cubic GridSample of float32 maps, or None for any other node.

    They are batch, channels, height and width of the maps, and height and width of the result.
    """
    if node.op_type != "GridSample" or node.attributes.get_string("mode", "linear") not in ("cubic", "bicubic"):
        return None
    x, grid = node.inputs
    shape, places = static_shape(x), static_shape(grid)
    if x is None or x.dtype != ir.DataType.FLOAT or shape is None or len(shape) != 4 or places is None:
        return None
    return (*shape, *places[1:3]) if shape[0] * shape[2] * shape[3] <= _MOST_PIXELS else None


def _cubic_weights(nodes: _Nodes, t: ir.Value) -> ir.Value:
    """Return the weights (places, 2, 4) of four pixels. t: the distance to the second pixel (places, 2, 1)."""
    weight = nodes.add("Mul", t, _CUBIC[0])
    for coefficients in _CUBIC[1:3]:
        weight = nodes.add("Mul", nodes.add("Add", weight, coefficients), t)
    return nodes.add("Add", weight, _CUBIC[3])


def _reflected(nodes: _Nodes, pixel: ir.Value, size: Array, is_aligned: bool) -> ir.Value:
    """Return the indices of pixels, (places, 2, 4), with those outside the map reflected at its borders.

    The borders are the middle of the outer pixels if corners are aligned, and else their outer edges. size: (1, 2, 1).
    """
    border = 0 if is_aligned else 0.5
    period = np.maximum(2 * (size - 1), 1) if is_aligned else 2 * size
    distance = nodes.add("Abs", nodes.add("Add", pixel, border))  # from the lower border
    turns = nodes.add("Floor", nodes.add("Div", distance, period))
    left = nodes.add("Sub", distance, nodes.add("Mul", turns, period))
    return nodes.add("Sub", nodes.add("Min", left, nodes.add("Sub", period, left)), border)


def _pairs(nodes: _Nodes, op_type: str, value: ir.Value) -> ir.Value:
    """Return (places, 4, 4): the numbers (places, 2, 4) of the two axes of a map, combined for each of 16 pixels."""
    across, down = (
        nodes.add("Slice", value, *(np.array([number], np.int64) for number in (axis, axis + 1, 1))) for axis in (0, 1)
    )
    return nodes.add(op_type, nodes.add("Transpose", down, perm=[0, 2, 1]), across)
