"""Takes large weights out of graphs that tools rewrite, and computes weights only when they are written.

A tool that copies, serializes or folds a graph then costs the same for a model of any size.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from backends.tensor import Array

# Smaller constants stay, because simplifying a graph needs their values. Biases, norms and shapes are all smaller.
LARGE_BYTES = 1 << 16


def detach_weights(model: ir.Model, at_least_bytes: int | None = None) -> dict[str, ir.TensorProtocol]:
    """Turn every initializer of at_least_bytes (LARGE_BYTES if None) or more into an input of the graph.

    Returns {name: tensor}, for attach_weights.
    """
    limit = LARGE_BYTES if at_least_bytes is None else at_least_bytes
    taken = {}
    for name, value in list(model.graph.initializers.items()):
        if value.const_value is not None and value.const_value.nbytes >= limit and not value.is_graph_input():
            taken[name] = value.const_value
            value.dtype, value.shape = value.const_value.dtype, ir.Shape(value.const_value.shape.numpy())
            value.const_value = None
            del model.graph.initializers[name]
            model.graph.inputs.append(value)
    return taken


def attach_weights(model: ir.Model, taken: dict[str, ir.TensorProtocol]) -> None:
    """Undo detach_weights, in `model` or in a rewritten copy. Weights that no node reads any more are dropped."""
    for value in list(model.graph.inputs):
        if value.name in taken:
            model.graph.inputs.remove(value)
            if value.uses() or value.is_graph_output():
                value.const_value = taken[value.name]
                model.graph.initializers.add(value)


def lazy_tensor(shape: tuple[int, ...], like: ir.TensorProtocol, make: Callable[[], Array]) -> ir.LazyTensor:
    """Return a tensor of this shape and the dtype of `like`.

    `make` computes its values at every use; nothing keeps them.
    """
    return ir.LazyTensor(lambda: ir.tensor(np.ascontiguousarray(make())), dtype=like.dtype, shape=ir.Shape(shape))


class _Transposed(ir.LazyTensor):
    """A matrix whose rows are the columns of `source`."""

    def __init__(self, source: ir.TensorProtocol) -> None:
        rows, columns = source.shape.numpy()
        self.source = source
        super().__init__(
            lambda: ir.tensor(np.ascontiguousarray(source.numpy().T)), source.dtype, ir.Shape((columns, rows))
        )


def transposed(matrix: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return the transpose of a constant matrix, computed at every use; for such a transpose, the matrix itself."""
    return matrix.source if isinstance(matrix, _Transposed) else _Transposed(matrix)
