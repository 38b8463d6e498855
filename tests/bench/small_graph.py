"""An ONNX file of anybody's, whose batch is open."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_graph(path: Path, factor: float, batch: int | str = 1) -> Path:
    """x (batch, 3, 8, 8) -> y, the same times `factor`, through a convolution."""
    weight = numpy_helper.from_array(np.full((4, 3, 1, 1), factor, np.float32), "conv.weight")
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, n, 8, 8]) for name, n in (("x", 3), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def _values(batch: int | str) -> list[tuple[str, int, list[int | str]]]:
    return [(name, TensorProto.FLOAT, [batch, channels, 8, 8]) for name, channels in (("x", 3), ("y", 4))]
