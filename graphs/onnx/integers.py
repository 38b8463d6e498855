"""Finds which values the integer and boolean inputs of a graph can have, from the operators that use them."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from backends.tensor import Array, IntegerValues

# Operators that pass the values of their first input on, in another shape, order or dtype.
_PASSES_ON = frozenset(
    {"Cast", "CastLike", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose"}
    | {"Unsqueeze"}
)
# Operators that pass on some of the values of their first input, and operators that pass on those of several inputs.
_PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Split"})
_JOINS = {"Concat": range(1 << 31), "Where": range(1, 3)}
# Operators in which 0 and 1, or a boolean, keep or hide each element.
_CHOOSES = frozenset({"And", "Mul", "Not", "Or"})
_BYTES = 256
_INTEGERS = frozenset(
    {ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL}
    | {ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
)


def integer_inputs(model: ir.Model) -> dict[str, IntegerValues]:
    """Return the possible values of each integer or boolean input about which the graph says something, by name.

    An input is followed through casts, changes of shape, and choices and unions of its values to the operators that use
    them. The smallest table that it indexes limits it. It is a mask if its name contains "mask", or if its values are
    subtracted from others, multiplied with them, choose elements in a Where, or are combined as booleans. Any other
    input of uint8 holds bytes, as of pixels, which may be subtracted and multiplied too.
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
        is_bytes = value.dtype == ir.DataType.UINT8
        masks = "mask" in name.lower() or (not is_bytes and any(_masks(node, place) for node, place in uses))
        mask = below is None and masks
        if is_bytes and below is None and not mask:
            below = _BYTES
        if below is not None or mask:
            found[name] = IntegerValues(below, mask, distinct)
    return found


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield each node that uses the values of `value`, unchanged, and the number of the node's input."""
    waiting, seen = [value], {value}
    while waiting:
        for node, place in waiting.pop().uses():
            picks = place == 0 and node.op_type in _PASSES_ON | _PICKS
            if picks or place in _JOINS.get(node.op_type, ()):
                new = [output for output in node.outputs if output not in seen]
                waiting += new
                seen.update(new)
            else:
                yield node, place


def _indexed_sizes(node: ir.Node, place: int) -> list[int]:
    """Return the sizes of the axes that a node indexes with the values of its input number `place`; [] if none.

    A one-hot vector is an index too: of OneHot, or as the values that are equal to 0, 1, 2 and so on.
    """
    if node.op_type == "OneHot" and place == 0:
        depth = _constant(node.inputs[1])
        return [] if depth is None or depth.size != 1 else [int(depth.item())]
    if node.op_type == "Equal":
        counted = _constant(node.inputs[1 - place])
        return [] if counted is None or not _counts(counted) else [int(counted.max()) + 1]
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


def _constant(value: ir.Value | None) -> Array | None:
    """Return the constant whose values a value has, in whatever shape; None if it is not a constant."""
    while value is not None and value.const_value is None:
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in _PASSES_ON else None
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _counts(values: Array) -> bool:
    """Return whether the values are 0, 1, 2 and so on, each at least once, and more than two of them."""
    found = np.unique(values)
    return found.size > 2 and found[0] == 0 and bool((np.diff(found) == 1).all())


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
