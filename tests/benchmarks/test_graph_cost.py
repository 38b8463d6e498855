"""Operations and bytes, counted by hand for graphs small enough to."""

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from benchmarks.graph_cost import cost

_HEAD = '<ir_version: 10, opset_import: ["": 20]>'


def _graph(text: str) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(f"{_HEAD} {text}")))


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("g (float[6,4] x, float[5,4] w) => (float[6,5] y) { y = Gemm<transB = 1>(x, w) }", 2 * 6 * 5 * 4),
        ("g (float[4,6] x, float[4,5] w) => (float[6,5] y) { y = Gemm<transA = 1>(x, w) }", 2 * 6 * 5 * 4),
        ("g (float[2,3,4] x, float[4,5] w) => (float[2,3,5] y) { y = MatMul(x, w) }", 2 * 2 * 3 * 5 * 4),
        ("g (float[1,3,8,8] x, float[7,3,3,3] w) => (float[1,7,6,6] y) { y = Conv(x, w) }", 2 * 7 * 36 * 27),
        ("g (float[1,4,8,8] x, float[4,1,3,3] w) => (float[1,4,6,6] y) { y = Conv<group = 4>(x, w) }", 2 * 4 * 36 * 9),
        (
            'g (float[2,3,4] x, float[3,5,4] w) => (float[2,3,5] y) { y = Einsum<equation = "bhc, hkc -> bhk">(x, w) }',
            2 * 2 * 3 * 4 * 5,
        ),
        ("g (float[6,4] x) => (float[6,4] y) { y = Relu(x) }", 0),
    ],
)
def test_products_count_twice_their_multiplications(text: str, operations: int) -> None:
    assert cost(_graph(text)).operations == operations


def test_weights_and_maps_are_counted_apart_and_a_reshape_moves_nothing() -> None:
    graph = """g (float[6,4] x) => (float[3,8] y) <float[4] w = {1,2,3,4}, int64[2] s = {3,8}> {
        z = Add(x, w)
        y = Reshape(z, s)
    }"""
    found = cost(_graph(graph))
    assert found.weight_bytes == 4 * 4 + 2 * 8
    assert found.map_bytes == 2 * 24 * 4
