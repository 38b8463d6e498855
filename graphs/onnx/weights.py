"""Large weights, kept out of the way of what rewrites a graph, and computed no sooner than they are written.

A tool that copies, serializes or folds a graph then costs the same for a model of any size.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from backends.tensor import Array

# Smaller constants stay: a graph is simplified by their values. Biases, norms and shapes are all below this.
LARGE_BYTES = 1 << 16


def detach_weights(model: ir.Model, at_least_bytes: int | None = None) -> dict[str, ir.TensorProtocol]:
    """Turn every initializer of LARGE_BYTES or more into an input of the graph. Returns name -> tensor."""
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
    """Undo detach_weights, in `model` or in a rewritten copy. A weight that no node reads any more is dropped."""
    for value in list(model.graph.inputs):
        if value.name in taken:
            model.graph.inputs.remove(value)
            if value.uses() or value.is_graph_output():
                value.const_value = taken[value.name]
                model.graph.initializers.add(value)


def lazy_tensor(shape: tuple[int, ...], like: ir.TensorProtocol, make: Callable[[], Array]) -> ir.LazyTensor:
    """A tensor of this shape and the dtype of `like`, made at every use and kept by nobody."""
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
    """The transpose of a constant matrix; that of a transpose is the matrix itself."""
    return matrix.source if isinstance(matrix, _Transposed) else _Transposed(matrix)
