"""Outputs of integers that are rounded floats, told apart from classes, indices and counts."""

import onnx.parser
import onnx_ir as ir
import pytest

from graphs.onnx.floats import rounded_outputs

_GRAPH = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,3,8,8] x, uint8[1,3,8,8] picture, int64[1,4] ids) => (DTYPE y) <float[2] table = {0.5, 1.5}> {
  big = Constant <value_float = 255.0> ()
  BODY
}"""


@pytest.mark.parametrize(
    ("dtype", "body", "expected"),
    [
        # Pictures: rounded, cut off at the ends, quantized, of a picture as well.
        ("uint8", "a = Sigmoid(x) b = Mul(a, big) c = Round(b) y = Cast <to = 2> (c)", True),
        ("uint8", "b = Mul(x, big) y = Cast <to = 2> (b)", True),
        ("int64", "a = Sigmoid(x) b = Cast <to = 7> (a) y = Transpose <perm = [0, 2, 3, 1]> (b)", True),
        ("uint8", "f = Cast <to = 1> (picture) a = Sigmoid(f) y = Cast <to = 2> (a)", True),
        ("uint8", "y = QuantizeLinear(x, big)", True),
        ("int64", "t = Gather(table, ids) e = Exp(t) y = Cast <to = 7> (e)", True),
        # Classes, indices, counts and identities.
        ("int64", "y = ArgMax <axis = 1> (x)", False),
        ("uint8", "a = ArgMax <axis = 1> (x) y = Cast <to = 2> (a)", False),
        ("int64", "a = ArgMax <axis = 1> (x) f = Cast <to = 1> (a) m = Mul(f, big) y = Cast <to = 7> (m)", False),
        ("int64", "a = Greater(x, big) f = Cast <to = 1> (a) s = ReduceSum(f) y = Cast <to = 7> (s)", False),
        ("bool", "y = Greater(x, big)", False),
        ("float", "y = Sigmoid(x)", False),
        ("uint8", "y = Identity(picture)", False),
        ("int64", "y = Shape(x)", False),
        ("int64", "t = Gather(table, ids) y = Cast <to = 7> (t)", False),
    ],
)
def test_a_rounded_float_is_told_from_a_class(dtype: str, body: str, expected: bool) -> None:
    model = onnx.parser.parse_model(_GRAPH.replace("DTYPE", dtype).replace("BODY", body))
    found = rounded_outputs(ir.from_proto(onnx.shape_inference.infer_shapes(model)))
    assert found == (("y",) if expected else ())
