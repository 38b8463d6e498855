"""The changes that passes make to a graph: nodes put in the place of others, new constants, and inferred shapes."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass
from onnxscript.rewriter import pattern

from backends.tensor import Array
from graphs.onnx.readers import Convolution, read_convolution

Attribute = int | float | str | Sequence[int]
_UNSTATED = "unstated"
# Operators with an optional first output, all states, and optional last states.
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def apply(rules: pattern.RewriteRuleSet, model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite until each rule has seen the whole graph. Returns the model without unused nodes, and whether it changed.

    The rules must be new objects: a rule holds on to the last graph that it saw, and so to all of its weights.
    """
    changed = rules.apply_to_model(model) > 0
    if changed:
        remove_unused_nodes(model)
        mark_unstated(model)  # for the values inside a replacement
    return model, changed


def remove_unused_nodes(model: ir.Model) -> None:
    """Remove the nodes and weights that nothing reads, in place. Outputs of recurrent layers keep their names.

    onnx_ir takes the names of outputs that nothing reads; onnx2tf does not lower a GRU whose first output has none.
    """
    named = [
        (value, value.name)
        for node in model.graph.all_nodes()
        if node.op_type in RECURRENT
        for value in node.outputs
        if value.name
    ]
    RemoveUnusedNodesPass()(model)
    for value, name in named:
        node = value.producer()
        if node is not None and node.graph is not None and not value.name:
            value.name = name


def new_constant(op: Any, tensor: ir.TensorProtocol, like: ir.Value, suffix: str) -> ir.Value:
    """Return a constant for a replacement, named after `like`, the constant that it is made from.

    Layers may share `like`, and a second initializer of a name would take the place of the first: a number then
    follows.
    """
    taken = {} if like.graph is None else like.graph.initializers
    name = f"{like.name}.{suffix}"
    names = chain((name,), (f"{name}.{i}" for i in count(2)))
    return op.initializer(tensor, name=next(free for free in names if free not in taken))  # type: ignore[no-any-return]


def new_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Attribute] | None = None,
    *,
    output: str,
    name: str | None = None,
) -> ir.Node:
    """Make a node whose one output has this name. The type and shape of the output are left to the pipeline."""
    return ir.node(op_type, inputs, attributes, outputs=[ir.Value(name=output)], name=name)


def replace_node(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Put the nodes `new` in the place of `old`.

    The output of the last gets name, type and shape of the output of `old`.
    """
    output, result = old.outputs[0], new[-1].outputs[0]
    set_value_info(result, str(output.name), output)
    graph.insert_before(old, new)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    output.name = None
    graph.remove(old, safe=True)


def set_value_info(value: ir.Value, name: str, like: ir.Value | None, shape: tuple[int, ...] | None = None) -> None:
    """Give a value a name, the type of `like`, and the shape of `like` unless `shape` is given.

    This is for an output of the graph, and for a value whose shape is read before the pipeline infers it.
    """
    assert like is not None
    value.name, value.type, value.shape = name, like.type, like.shape if shape is None else ir.Shape(shape)


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Add an array to a graph as an initializer, and return its value."""
    # np.array, because ascontiguousarray would give a scalar an axis.
    return add_tensor(graph, name, ir.tensor(np.array(array, order="C")))


def add_tensor(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Add a tensor to a graph as an initializer, and return its value.

    The tensor gets the name, so nothing else may use it. Its values may be computed only when they are written.
    """
    tensor.name = name
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape)
    graph.initializers.add(value)
    return value


def add_sizes(graph: ir.Graph, name: str, shape: tuple[int, ...]) -> ir.Value:
    """Add a shape to a graph as an int64 initializer, for a Reshape, and return its value."""
    return add_constant(graph, name, np.array(shape, np.int64))


def rewrite_convolutions(
    model: ir.Model,
    fits: Callable[[ir.Node, Convolution], bool],
    rewrite: Callable[[ir.Graph, ir.Node, Convolution], None],
    op_type: str = "Conv",
) -> tuple[ir.Model, bool]:
    """Call `rewrite` for every convolution of type `op_type` that fits.

    Returns the model, and whether there was one.
    """
    read = [(node, read_convolution(node, op_type)) for node in model.graph]
    found = [(node, conv) for node, conv in read if conv is not None and fits(node, conv)]
    for node, conv in found:
        rewrite(model.graph, node, conv)
    return model, bool(found)


def state_shapes(model: ir.Model) -> None:
    """State every type and shape that follows from the inputs, in place.

    Weights over a kilobyte are not serialized for it.
    """
    weights = list(model.graph.initializers.values())
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    # The inference moves large weights behind all others. Files keep the order, so it is restored.
    model.graph.initializers.clear()
    for weight in weights:
        model.graph.initializers.add(weight)


def mark_unstated(model: ir.Model) -> None:
    """Mark the tensors without a type: passes may read their inferred shapes, but files must not state them.

    onnxsim numbers its constants by the tensors whose shapes are stated, and the lowering copies each stated shape.
    """
    for node in model.graph:
        for value in node.outputs:
            if value.type is None:
                value.meta[_UNSTATED] = True


def forget_shapes(model: ir.Model) -> None:
    """Remove the types and shapes that state_shapes gave to the marked tensors, except to outputs of the graph."""
    for node in model.graph:
        for value in node.outputs:
            if value.meta.get(_UNSTATED) and not value.is_graph_output():
                value.type, value.shape = None, None
