"""Arithmetic on integers of 8 and 16 bits -> the same on int32, with casts around it.

TFLite knows such tensors as quantized ones alone: without a scale its kernels abort the process, or are not there. The
results are the same, bit for bit: casting back wraps around as the small type does.
"""

import onnx_ir as ir

_SMALL = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16)
_ARITHMETIC = ("Abs", "Add", "Clip", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Relu", "Sign", "Sub", "Sum", "Where")
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_OPERATORS = frozenset((*_ARITHMETIC, *_COMPARISONS))


def widen_small_integers(model: ir.Model) -> tuple[ir.Model, bool]:
    """Compute every element-wise operator on int8, uint8 and int16 in int32."""
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
