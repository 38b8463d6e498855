"""A convolution with very many weights an output -> a sum of convolutions, one of each row of its kernel.

XNNPACK works through all the weights of sixteen outputs for every few places of the map. Where those fill a core's
cache they come from memory each time: 3 x 3 x 2896 (1.7 MB in float32) took 48 ms in INT8 and 730 in float32, by rows
22 and 630. One of 768 channels gains nothing. For graphs that are about to be lowered.
"""

import math

import onnx_ir as ir

from graphs.large_weights import computed
from graphs.prepare.convolution import Convolution, rewrite_convolutions
from graphs.prepare.nodes import add_sizes, add_tensor, describe, put

# Weights of one output.
MOST_WEIGHTS = 1 << 14


def split_large_conv(model: ir.Model) -> tuple[ir.Model, bool]:
    """Split every Conv with more than MOST_WEIGHTS weights an output, unless it pads or skips."""
    return rewrite_convolutions(model, _is_large, _split)


def _is_large(node: ir.Node, conv: Convolution) -> bool:
    weights = conv.of[1] * math.prod(conv.kernel)
    return weights > MOST_WEIGHTS and conv.kernel[0] > 1 and conv.steps == (1, 1) and not any(conv.pads)


def _split(graph: ir.Graph, node: ir.Node, conv: Convolution) -> None:
    output, height = node.outputs[0], conv.made[2]
    new: list[ir.Node] = []
    total: ir.Value | None = None
    for row in range(conv.kernel[0]):
        name = f"{output.name}.row{row}"
        bounds = [add_sizes(graph, f"{name}.{what}", (at,)) for what, at in (("from", row), ("to", row + height))]
        part = ir.node("Slice", [conv.x, *bounds, add_sizes(graph, f"{name}.axis", (2,))], name=f"{name}.part")
        describe(part.outputs[0], f"{name}.part", conv.x, (*conv.of[:2], height, conv.of[3]))
        bias = node.inputs[2:] if row == 0 else ()
        inputs = [part.outputs[0], add_tensor(graph, f"{name}.weight", _row(conv, row)), *bias]
        product = ir.node("Conv", inputs, {"kernel_shape": [1, conv.kernel[1]]}, name=name)
        describe(product.outputs[0], f"{name}.out", output)
        new += [part, product]
        if total is not None:
            new.append(ir.node("Add", [total, product.outputs[0]], name=f"{name}.sum"))
            describe(new[-1].outputs[0], f"{name}.sum", output)
        total = new[-1].outputs[0]
    put(graph, node, new)


def _row(conv: Convolution, row: int) -> ir.TensorProtocol:
    shape = (conv.made[1], conv.of[1], 1, conv.kernel[1])
    return computed(shape, conv.values, lambda: conv.values.numpy()[:, :, row : row + 1])
