"""Finds which values the integer and boolean inputs of a graph can have, from the operators that use them."""

from collections.abc import Iterator

import onnx_ir as ir

from backends.tensor import IntegerValues

# Operators that pass the values of their first input on, in another shape, order or dtype.
_PASSES_ON = frozenset(
    {"Cast", "CastLike", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose"}
    | {"Unsqueeze"}
)
# Operators in which 0 and 1, or a boolean, keep or hide each element.
_CHOOSES = frozenset({"And", "Mul", "Not", "Or"})
_INTEGERS = frozenset(
    {ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL}
    | {ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
)


def integer_inputs(model: ir.Model) -> dict[str, IntegerValues]:
    """Return the possible values of each integer or boolean input about which the graph says something, by name.

    An input is followed through casts and changes of shape to the operators that use its values. The smallest table
    that it indexes limits it. It is a mask if its name contains "mask", or if its values are subtracted from others,
    multiplied with them, choose elements in a Where, or are combined as booleans.
    """
    found = {}
    for value in model.graph.inputs:
        name = str(value.name)
        if value.dtype not in _INTEGERS:
            continue
        uses = list(_uses(value))
        sizes = [size for node, place in uses for size in _indexed_sizes(node, place)]
        below = min(sizes) if sizes else None
        distinct = max((_scatter_width(node, place) for node, place in uses), default=0)
        mask = below is None and ("mask" in name.lower() or any(_masks(node, place) for node, place in uses))
        if below is not None or mask:
            found[name] = IntegerValues(below, mask, distinct)
    return found


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield each node that uses the values of `value`, unchanged, and the number of the node's input."""
    waiting, seen = [value], {value}
    while waiting:
        for node, place in waiting.pop().uses():
            if node.op_type in _PASSES_ON and place == 0:
                new = [output for output in node.outputs if output not in seen]
                waiting += new
                seen.update(new)
            else:
                yield node, place


def _indexed_sizes(node: ir.Node, place: int) -> list[int]:
    """Return the sizes of the axes that a node indexes with the values of its input number `place`; [] if none."""
    if place != 1 or not node.inputs or (table := node.inputs[0]) is None or table.shape is None:
        return []
    if node.op_type in ("Gather", "GatherElements", "ScatterElements"):
        axis = node.attributes.get_int("axis", 0)
        axes = [axis] if -len(table.shape) <= axis < len(table.shape) else []
    elif node.op_type in ("GatherND", "ScatterND"):
        first = node.attributes.get_int("batch_dims", 0)
        axes = list(range(first, first + _index_width(node)))
    else:
        return []
    return [size for axis in axes if isinstance(size := table.shape[axis], int) and size > 0]


def _index_width(node: ir.Node) -> int:
    """Return the number of values that form one index of a GatherND or ScatterND; 0 if it is not known."""
    indices = node.inputs[1]
    width = None if indices is None or not indices.shape else indices.shape[-1]
    return width if isinstance(width, int) else 0


def _scatter_width(node: ir.Node, place: int) -> int:
    """Return the number of values that form one index of a scatter that has `place` as its indices; 0 for others."""
    if place != 1 or node.op_type not in ("ScatterElements", "ScatterND"):
        return 0
    return 1 if node.op_type == "ScatterElements" else _index_width(node)


def _masks(node: ir.Node, place: int) -> bool:
    """Return whether a node uses its input number `place` to keep or hide elements."""
    if node.op_type == "Where":
        return place == 0
    return (node.op_type == "Sub" and place == 1) or node.op_type in _CHOOSES
