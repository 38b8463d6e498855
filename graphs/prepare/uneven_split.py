"""Split into parts of different sizes -> a slice for each: onnx2tf lowers even splits alone."""

import numpy as np
import onnx_ir as ir

from graphs.prepare.nodes import add_sizes, describe
from graphs.prepare.rewriting import constant, static_shape


def slice_uneven_splits(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write every Split whose constant sizes are not all the same as Slices."""
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
            describe(part.outputs[0], name, output)
            model.graph.insert_before(node, part)
            output.replace_all_uses_with(part.outputs[0], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    return model, bool(found)


def _uneven(node: ir.Node) -> list[int] | None:
    """The sizes of the parts, where they are known and differ, and none is empty."""
    if node.op_type != "Split" or node.inputs[0] is None or (shape := static_shape(node.inputs[0])) is None:
        return None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = constant(node.inputs[1])
        parts = [] if sizes is None else [int(size) for size in sizes]
    else:  # as many as there are outputs, of which the last is what is left
        whole, count = shape[node.attributes.get_int("axis", 0)], len(node.outputs)
        most = -(-whole // count)
        parts = [most] * (count - 1) + [whole - most * (count - 1)]
    return parts if len(set(parts)) > 1 and min(parts) > 0 else None
