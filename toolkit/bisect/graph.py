"""An ONNX graph whose every tensor has a known shape, and its values in running order."""

from pathlib import Path

import onnx_ir as ir

from graphs.foreign import infer_shapes
from graphs.onnx_file import read

Known = tuple[tuple[int, ...], str]


def read_with_shapes(path: Path) -> ir.Model:
    """Read a graph, its large weights left where they are, and state the shapes that it does not state itself."""
    model = read(path)
    unknown = [v for v in named_values(model).values() if shape_and_dtype(v) is None]
    if unknown:
        # Its result is a copy, which no longer knows where the weights beside the graph lie.
        inferred = named_values(infer_shapes(model))
        for value in unknown:
            like = inferred[str(value.name)]
            value.shape, value.type = like.shape, like.type
    return model


def named_values(model: ir.Model) -> dict[str, ir.Value]:
    """Inputs of a graph and what its nodes make, in running order, by name."""
    made = (value for node in model.graph for value in node.outputs)
    return {str(value.name): value for value in (*model.graph.inputs, *made) if value.name}


def shape_and_dtype(value: ir.Value) -> Known | None:
    """Sizes and numpy dtype name of a value; None where the graph does not tell."""
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy()), value.dtype.numpy().name
