"""A convolution with very many weights an output -> a sum of convolutions, one of each row of its kernel.

XNNPACK works through all the weights of sixteen outputs for every few places of the map. Where those fill a core's
cache they come from memory each time: 3 x 3 x 2896 (1.7 MB in float32) took 48 ms in INT8 and 730 in float32, by rows
22 and 630. One of 768 channels gains nothing. For graphs that are about to be lowered.
"""

import math

import onnx_ir as ir

from graphs.large_weights import computed
from graphs.prepare.nodes import add_sizes, add_tensor, describe, put
from graphs.prepare.rewriting import static_shape

# Weights of one output.
MOST_WEIGHTS = 1 << 14


def split_large_conv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Split every Conv with more than MOST_WEIGHTS weights an output, unless it pads, skips or groups."""
    found = [node for node in model.graph if _is_large(node)]
    for node in found:
        _split(model.graph, node)
    return model, bool(found)


def _is_large(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.inputs[1] is None or static_shape(node.inputs[0]) is None:
        return False
    kernel = ir.convenience.get_const_tensor(node.inputs[1])
    if kernel is None or len(kernel.shape) != 4 or static_shape(node.outputs[0]) is None:
        return False
    sizes = [int(size) for size in kernel.shape.numpy()]
    return (
        math.prod(sizes[1:]) > MOST_WEIGHTS
        and sizes[2] > 1
        and not any(node.attributes.get_ints("pads", (0,)))
        and node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and {*node.attributes.get_ints("strides", (1,)), *node.attributes.get_ints("dilations", (1,))} == {1}
        and node.attributes.get_int("group", 1) == 1
    )


def _split(graph: ir.Graph, node: ir.Node) -> None:
    x, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None and weight is not None and weight.const_value is not None  # _is_large
    of, made = static_shape(x), static_shape(output)
    assert of is not None and made is not None  # _is_large
    outputs, channels, rows, columns = (int(size) for size in weight.const_value.shape.numpy())
    new: list[ir.Node] = []
    total: ir.Node | None = None
    for row in range(rows):
        name = f"{output.name}.row{row}"
        bounds = [add_sizes(graph, f"{name}.{what}", (at,)) for what, at in (("from", row), ("to", row + made[2]))]
        part = ir.node("Slice", [x, *bounds, add_sizes(graph, f"{name}.axis", (2,))], name=f"{name}.part")
        describe(part.outputs[0], f"{name}.part", x, (*of[:2], made[2], of[3]))
        values = add_tensor(graph, f"{name}.weight", _row(weight.const_value, row, (outputs, channels, 1, columns)))
        bias = node.inputs[2:] if row == 0 else ()
        product = ir.node("Conv", [part.outputs[0], values, *bias], {"kernel_shape": [1, columns]}, name=name)
        describe(product.outputs[0], f"{name}.out", output)
        new += [part, product]
        if total is not None:
            total = ir.node("Add", [total.outputs[0], product.outputs[0]], name=f"{name}.sum")
            describe(total.outputs[0], f"{name}.sum", output)
            new.append(total)
        else:
            total = product
    put(graph, node, new)
    if weight.name is not None and not weight.uses():
        del graph.initializers[weight.name]


def _row(kernel: ir.TensorProtocol, row: int, shape: tuple[int, ...]) -> ir.TensorProtocol:
    return computed(shape, kernel, lambda: kernel.numpy()[:, :, row : row + 1])
