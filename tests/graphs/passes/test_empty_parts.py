"""Computed tensors of size zero are left out of a Concat: TFLite has none."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from graphs.onnx.sizes import infer_shapes
from graphs.passes.pipeline import prepare
from graphs.passes.simplify import drop_empty_parts

# The channels from the fourth on, of a tensor with three: none.
_REST = """three = Constant<value_ints = [3]>() end = Constant<value_ints = [9]>() one = Constant<value_ints = [1]>()
    rest = Slice(x, three, end, one)"""


def _model(parts: str, channels: int) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["": 20]> g (float[1,3,2,2] x) => (float[1,{channels},2,2] y) {{
        {_REST} y = Concat<axis = -3>({parts}) }}"""
    return infer_shapes(ir.from_proto(onnx.parser.parse_model(text)))


@pytest.mark.parametrize(
    ("parts", "channels", "expected"),
    [("x, rest, x", 6, ["Concat"]), ("rest, x", 3, ["Identity"]), ("rest, rest", 0, None), ("x, x", 6, None)],
    ids=["among others", "beside one", "alone", "not there"],
)
def test_empty_parts_are_left_out(parts: str, channels: int, expected: list[str] | None) -> None:
    model = _model(parts, channels)
    before = [node.op_type for node in model.graph]
    feeds = {"x": np.random.default_rng(0).random((1, 3, 2, 2), np.float32)}
    if expected is None:
        assert drop_empty_parts(model)[1] is False
        assert [node.op_type for node in model.graph] == before
        return
    model, changed = prepare(model, feeds, (drop_empty_parts,))  # compares with the graph before
    assert changed == ("drop_empty_parts",)
    assert [node.op_type for node in model.graph] == expected
