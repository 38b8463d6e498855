"""Position terms that are not joined become products of rank 4, and stay what they were."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphs.passes.pipeline import run_once, run_pass
from graphs.passes.positions import einsum_to_matmul

BATCH, HEADS, HEIGHT, WIDTH, FEATURES, KEYS = 2, 3, 4, 5, 6, 7


def _model(equation: str, rows: int) -> ir.Model:
    maps, out = [BATCH, HEADS, HEIGHT, WIDTH, FEATURES], [BATCH, HEADS, HEIGHT, WIDTH, KEYS]
    text = f"""<ir_version: 10, opset_import: ["": 20]> g (float{maps} x) => (float{out} y)
    {{ y = Einsum<equation="{equation}">(x, table) }}"""
    proto = onnx.parser.parse_model(text)
    table = np.random.default_rng(0).standard_normal((rows, KEYS, FEATURES), dtype=np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    return ir.from_proto(proto)


@pytest.mark.parametrize(("equation", "rows"), [("bnhwc,hkc->bnhwk", HEIGHT), ("bnhwc, wkc -> bnhwk", WIDTH)])
def test_a_matrix_for_each_row_or_column_is_a_product(equation: str, rows: int) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((BATCH, HEADS, HEIGHT, WIDTH, FEATURES), dtype=np.float32)}
    model = _model(equation, rows)
    expected = run_once(model, feeds, "before")["y"]
    model, changed = run_pass(einsum_to_matmul, model)
    assert changed
    operators = [node.op_type for node in model.graph]
    assert "Einsum" not in operators
    assert all(len(node.outputs[0].shape or ()) == 4 for node in model.graph if node.op_type == "MatMul")
    assert operators.count("Transpose") == (0 if rows == HEIGHT else 2)
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], expected, atol=1e-5)


def test_other_equations_stay() -> None:
    model, changed = einsum_to_matmul(_model("bnhwc,ikc->bnhwk", 1))
    assert not changed
    assert [node.op_type for node in model.graph] == ["Einsum"]
