"""Shapes are inferred without the large weights, and the graph is otherwise as it was."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from backends.tensor import Array
from graphs.onnx.readers import static_shape
from graphs.onnx.rewriting import add_constant, add_tensor, forget_shapes, mark_unstated, new_node, state_shapes
from graphs.onnx.weights import lazy_tensor

LARGE = (64, 64)


def _never() -> Array:
    raise AssertionError("a large weight was computed")


def _model() -> ir.Model:
    """x @ w, reshaped: a large weight that lies between two small ones, and two tensors that nothing describes."""
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[2,64] x) => (float[4,32] y) { y = Relu(x) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    (last,) = model.graph
    first = add_constant(model.graph, "first", np.ones(1, np.float32))
    weight = add_tensor(model.graph, "w", lazy_tensor(LARGE, ir.tensor(np.ones(1, np.float32)), _never))
    sizes = add_constant(model.graph, "sizes", np.array([4, 32]))
    product = new_node("MatMul", [last.inputs[0], weight], output="product")
    moved = new_node("Add", [product.outputs[0], first], output="moved")
    map_ = new_node("Reshape", [moved.outputs[0], sizes], output="map")
    model.graph.insert_before(last, [product, moved, map_])
    last.replace_input_with(0, map_.outputs[0])
    return model


def _shapes(model: ir.Model) -> dict[str | None, tuple[int, ...] | None]:
    return {value.name: static_shape(value) for node in model.graph for value in node.outputs}


def test_shapes_follow_from_the_inputs_and_no_large_weight_is_computed() -> None:
    model = _model()
    state_shapes(model)
    assert _shapes(model) == {"product": (2, 64), "moved": (2, 64), "map": (4, 32), "y": (4, 32)}
    assert all(value.type is not None for node in model.graph for value in node.outputs)


def test_weights_stay_where_they_were() -> None:
    model = _model()
    before = list(model.graph.initializers.items())
    state_shapes(model)
    assert list(model.graph.initializers.items()) == before
    assert [value.name for value in model.graph.inputs] == ["x"]
    with pytest.raises(AssertionError, match="a large weight was computed"):
        model.graph.initializers["w"].const_value.numpy()  # type: ignore[union-attr]  # a constant


def test_what_a_rule_leaves_undescribed_is_known_meanwhile_and_not_written() -> None:
    model = _model()
    mark_unstated(model)
    state_shapes(model)
    assert _shapes(model)["map"] == (4, 32)
    forget_shapes(model)
    assert _shapes(model) == {"product": None, "moved": None, "map": None, "y": (4, 32)}
