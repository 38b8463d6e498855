"""A reflected border of one pixel -> the neighbours of the edges, put beside them.

TFLite's MIRROR_PAD runs on one core and is none of XNNPACK's operators, so it also splits the delegate's part of the
graph in two. Slices and concatenations are. ONNX Runtime has a kernel for Pad, so this is for graphs that are about to
be lowered.
"""

import numpy as np
import onnx_ir as ir

from graphs.prepare.nodes import add_constant, describe, put
from graphs.prepare.rewriting import constant, static_shape


def reflect_by_slices(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite every Pad that reflects at most one element on each side of a map whose shape is known.

    A wider border would be as many slices as it has pixels, in reverse order.
    """
    changed = sum(_rewrite(model.graph, node) for node in list(model.graph))
    return model, bool(changed)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "reflect":
        return False
    borders, value = _borders(node), node.inputs[0]
    if not borders or value is None:
        return False
    made: list[ir.Node] = []
    for axis, (before, after) in borders.items():
        shape = static_shape(value)
        assert shape is not None  # _borders
        parts = [value]
        if before:
            parts.insert(0, _one(graph, made, value, axis, 1, f"{node.name}.before{axis}"))
        if after:
            parts.append(_one(graph, made, value, axis, shape[axis] - 2, f"{node.name}.after{axis}"))
        joined = ir.node("Concat", parts, {"axis": axis}, name=f"{node.name}.axis{axis}")
        sizes = [size + (before + after if i == axis else 0) for i, size in enumerate(shape)]
        describe(joined.outputs[0], f"{joined.name}.out", value, tuple(sizes))
        made.append(joined)
        value = joined.outputs[0]
    put(graph, node, made)
    return True


def _borders(node: ir.Node) -> dict[int, tuple[int, int]]:
    """By axis, what is added before and after, if nowhere more than one element; else nothing."""
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
    """The slice of one element at `index` of an axis."""
    bounds = [
        add_constant(graph, f"{name}.{what}", np.array([number], np.int64))
        for what, number in (("start", index), ("end", index + 1), ("axis", axis))
    ]
    slice_ = ir.node("Slice", [value, *bounds], name=name)
    shape = static_shape(value)
    assert shape is not None  # _borders
    describe(slice_.outputs[0], f"{name}.out", value, tuple(1 if i == axis else size for i, size in enumerate(shape)))
    made.append(slice_)
    return slice_.outputs[0]
