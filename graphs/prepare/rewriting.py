"""What the passes share: applying rules, and reading the constants and shapes that they match on."""

from itertools import chain, count
from typing import Any

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
