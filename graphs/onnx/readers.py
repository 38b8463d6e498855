"""What the passes share: applying rules, and reading the constants and shapes that they match on."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter import pattern

from backends.tensor import Array


def apply(rules: pattern.RewriteRuleSet, model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite until each rule has seen the whole graph. Returns the model, without what became unused, and whether
    anything changed.

    The rules must be new ones: they hold on to the last graph that they saw, and so to all of its weights.
    """
    changed = rules.apply_to_model(model) > 0
    if changed:
        RemoveUnusedNodesPass()(model)
    return model, changed


def new_constant(op: Any, tensor: ir.TensorProtocol, like: ir.Value, suffix: str) -> ir.Value:
    """A constant for a replacement, named after the one that it is made of.

    Layers may share that one, and a second initializer of a name would take the first one's place.
    """
    taken = {} if like.graph is None else like.graph.initializers
    name = f"{like.name}.{suffix}"
    names = chain((name,), (f"{name}.{i}" for i in count(2)))
    return op.initializer(tensor, name=next(free for free in names if free not in taken))  # type: ignore[no-any-return]


def constant(value: ir.Value | None) -> Array | None:
    """The array of a value that is fixed in the graph, or None if it is computed, or missing."""
    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def matrix_shape(value: ir.Value | None) -> tuple[int, int] | None:
    """The shape of a constant matrix, without computing its values, or None if it is not one."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    shape = () if tensor is None else tuple(tensor.shape.numpy())
    return (shape[0], shape[1]) if len(shape) == 2 else None


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value if every size of it is known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy())


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes a value, if it is of this type."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def reshape_of(value: ir.Value | None) -> ir.Node | None:
    """The Reshape that makes a value, if its sizes are fixed."""
    node = made_by(value, "Reshape")
    return node if node is not None and constant(node.inputs[1]) is not None else None


def replace_node(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Put nodes in the place of one, the last of them under the name of its output."""
    output, result = old.outputs[0], new[-1].outputs[0]
    set_value_info(result, str(output.name), output)
    graph.insert_before(old, new)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    output.name = None
    graph.remove(old, safe=True)


def set_value_info(value: ir.Value, name: str, like: ir.Value | None, shape: tuple[int, ...] | None = None) -> None:
    """Name a new value, of the type of another, and of its shape unless one is given."""
    assert like is not None
    value.name, value.type, value.shape = name, like.type, like.shape if shape is None else ir.Shape(shape)


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initializer."""
    return add_tensor(graph, name, ir.tensor(np.array(array, order="C")))  # ascontiguousarray gives a scalar an axis


def add_tensor(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer of a tensor that nobody else has, its values computed perhaps no sooner than it is written."""
    tensor.name = name
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape)
    graph.initializers.add(value)
    return value


def add_sizes(graph: ir.Graph, name: str, shape: tuple[int, ...]) -> ir.Value:
    """A shape as an initializer, for a Reshape."""
    return add_constant(graph, name, np.array(shape, np.int64))


@dataclass(frozen=True)
class Convolution:
    """A Conv or ConvTranspose of one group, not dilated, with constant weights, between maps of known sizes.

    input_shape, output_shape: of the maps, (N, C, H, W). kernel, strides: rows, columns. pads: before the rows and
    columns, then after them.
    """

    x: ir.Value
    weight: ir.Value
    values: ir.TensorProtocol
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def makes_patches(self) -> bool:
        """Whether its strides are as large as its square kernel, and nothing is padded: no pixel is seen twice."""
        return self.strides == self.kernel and self.kernel[0] == self.kernel[1] > 1 and not any(self.pads)


def read_convolution(node: ir.Node, op_type: str = "Conv") -> Convolution | None:
    """What the node says, or None where it is another one. Padding that is only named is none of ours."""
    if node.op_type != op_type or node.inputs[0] is None or node.inputs[1] is None:
        return None
    x, weight = node.inputs[0], node.inputs[1]
    values, of, made = ir.convenience.get_const_tensor(weight), static_shape(x), static_shape(node.outputs[0])
    if values is None or of is None or made is None or not len(values.shape) == len(of) == len(made) == 4:
        return None
    attributes = node.attributes
    if (
        attributes.get_int("group", 1) != 1
        or set(attributes.get_ints("dilations", (1, 1))) != {1}
        or attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    ):
        return None
    rows, columns = (int(size) for size in values.shape.numpy()[2:])
    row_step, column_step = attributes.get_ints("strides", (1, 1))
    top, left, bottom, right = attributes.get_ints("pads", (0, 0, 0, 0))
    pads = (top, left, bottom, right)
    return Convolution(x, weight, values, of, made, (rows, columns), (row_step, column_step), pads)


def rewrite_convolutions(
    model: ir.Model,
    fits: Callable[[ir.Node, Convolution], bool],
    rewrite: Callable[[ir.Graph, ir.Node, Convolution], None],
    op_type: str = "Conv",
) -> tuple[ir.Model, bool]:
    """Rewrite every convolution of this type that fits. Returns the model, and whether there was one."""
    read = [(node, read_convolution(node, op_type)) for node in model.graph]
    found = [(node, conv) for node, conv in read if conv is not None and fits(node, conv)]
    for node, conv in found:
        rewrite(model.graph, node, conv)
    return model, bool(found)
