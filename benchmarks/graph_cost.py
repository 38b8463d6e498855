"""Operations and bytes of an ONNX graph, counted from its shapes."""

import math
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Cost:
    """The cost of one run of a graph.

    operations: of matrix products and convolutions only; a multiplication and an addition count as two. weight_bytes:
    size of the constants. map_bytes: bytes of other tensors that the nodes read and write, if no cache holds any.
    """

    operations: int
    weight_bytes: int
    map_bytes: int


def cost(model: ir.Model) -> Cost:
    """Return the cost of one run of a graph. Raises ValueError for a tensor without a static shape."""
    nodes = list(model.graph)
    maps = [
        value
        for node in nodes
        if node.op_type != "Reshape"  # moves no data
        for value in (*node.inputs, *node.outputs)
        if value is not None and value.const_value is None
    ]
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    return Cost(
        sum(_operations(node) for node in nodes),
        sum(tensor.nbytes for tensor in weights),
        sum(_size(value) * (value.dtype.itemsize if value.dtype else 4) for value in maps),  # type: ignore[misc]
    )


def _operations(node: ir.Node) -> int:
    if node.op_type in ("Gemm", "MatMul"):
        left = node.inputs[0]
        assert left is not None
        inner = _shape(left)[-2 if node.attributes.get_int("transA", 0) else -1]
        return 2 * inner * _size(node.outputs[0])
    if node.op_type == "Conv":
        weight = node.inputs[1]
        assert weight is not None
        return 2 * math.prod(_shape(weight)[1:]) * _size(node.outputs[0])
    if node.op_type == "Einsum":
        equation = node.attributes.get_string("equation", "").replace(" ", "")
        sizes: dict[str, int] = {}
        for letters, value in zip(equation.split("->")[0].split(","), node.inputs, strict=True):
            assert value is not None
            sizes |= dict(zip(letters, _shape(value), strict=True))
        return 2 * math.prod(sizes.values())
    return 0


def _size(value: ir.Value) -> int:
    return math.prod(_shape(value))


def _shape(value: ir.Value) -> tuple[int, ...]:
    if value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    if value.shape is None or not value.shape.is_static():
        raise ValueError(f"{value.name}: expected a stated shape, got {value.shape}")
    return tuple(int(size) for size in value.shape.numpy())
