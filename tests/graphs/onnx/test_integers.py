"""Which values the integer inputs of a graph can have, read from the operators that use them."""

import onnx.parser
import onnx_ir as ir
import pytest

from backends.tensor import IntegerValues
from graphs.onnx.integers import integer_inputs


def _found(inputs: str, body: str) -> dict[str, IntegerValues]:
    text = f'<ir_version: 10, opset_import: ["": 18]> g ({inputs}) => (float[a] y) {body}'
    return integer_inputs(ir.from_proto(onnx.parser.parse_model(text)))


TABLES = "float[30,4] words, float[7,4] kinds, float[30,4,5] deep"


@pytest.mark.parametrize(
    ("body", "below"),
    [
        ("{ y = Gather(words, x) }", 30),
        ("{ y = Gather<axis = 1>(words, x) }", 4),
        ("{ y = Gather<axis = -1>(deep, x) }", 5),
        ("{ a = Gather(words, x) b = Gather(kinds, x) y = Add(a, b) }", 7),
        ("{ a = Cast<to = 6>(x) b = Identity(a) c = Flatten(b) y = Gather(words, c) }", 30),
        ("{ a = Gather<axis = 1>(x, last) y = Gather(words, a) }", 30),
        ("{ a = Concat<axis = 0>(start, x) y = Gather(words, a) }", 30),
        ("{ a = Where(padded, start, x) y = Gather(words, a) }", 30),
        ("{ a, b = Split<axis = 1, num_outputs = 2>(x) c = Gather(words, a) d = Gather(kinds, b) y = Add(c, d) }", 7),
        ("{ a = Transpose(x) y = GatherElements<axis = 1>(words, a) }", 4),
        ("{ y = GatherND(deep, x) }", 4),
    ],
)
def test_an_index_is_below_the_size_of_the_smallest_table(body: str, below: int) -> None:
    found = _found(f"int64[3,2] x, {TABLES}, float[1] last, float[3,2] start, float[3,2] padded", body)
    assert found == {"x": IntegerValues(below)}


@pytest.mark.parametrize(
    ("body", "below"),
    [
        ("<int64 depth = {9}, float[2] pair = {0, 1}> { y = OneHot(x, depth, pair) }", 9),
        ("<int64[5] all = {0, 1, 2, 3, 4}> { a = Unsqueeze(x, at) b = Equal(a, all) y = Cast<to = 1>(b) }", 5),
        ("<int64[5] all = {0, 1, 2, 3, 4}> { a = Expand(all, at) b = Equal(a, x) y = Cast<to = 1>(b) }", 5),
        ("<int64[1] pad = {0}> { a = Equal(x, pad) y = Cast<to = 1>(a) }", None),
        ("<int64[3] odd = {0, 1, 3}> { a = Equal(x, odd) y = Cast<to = 1>(a) }", None),
        ("{ y = OneHot(x, at, at) }", None),
    ],
)
def test_a_one_hot_vector_is_an_index(body: str, below: int | None) -> None:
    found = _found("int64[3,1] x, float[1] at", body)
    assert found == ({} if below is None else {"x": IntegerValues(below)})


def test_a_table_that_is_not_indexed_by_the_input_says_nothing() -> None:
    assert _found(f"int64[3] x, int64[2] at, {TABLES}", "{ y = Gather(x, at) }") == {"at": IntegerValues(3)}
    assert _found(f"int64[3] x, {TABLES}", "{ one = Add(x, x) y = Gather(words, one) }") == {}


@pytest.mark.parametrize(
    ("body", "distinct", "below"),
    [
        ("{ y = ScatterElements<axis = 0>(words, x, new) }", 1, 30),
        ("{ y = ScatterND(words, x, new) }", 2, 4),
    ],
)
def test_indices_of_a_scatter_differ(body: str, distinct: int, below: int) -> None:
    found = _found(f"int64[3,2] x, float[3,2] new, {TABLES}", body)
    assert found == {"x": IntegerValues(below, False, distinct)}


@pytest.mark.parametrize(
    ("dtype", "name", "body"),
    [
        ("int64", "attention_mask", "{ a = Cast<to = 1>(attention_mask) y = Div(a, a) }"),
        ("int64", "x", "{ a = Cast<to = 1>(x) one = Neg(a) y = Sub(one, a) }"),
        ("int32", "x", "{ a = Cast<to = 9>(x) y = Where(a, words, words) }"),
        ("bool", "x", "{ a = Not(x) y = Cast<to = 1>(a) }"),
        ("int64", "x", "{ a = Unsqueeze(x, at) b = Cast<to = 1>(a) y = Mul(words, b) }"),
    ],
)
def test_what_keeps_and_hides_elements_is_a_mask(dtype: str, name: str, body: str) -> None:
    found = _found(f"{dtype}[3,4] {name}, float[1] at, {TABLES}", body)
    assert found == {name: IntegerValues(mask=True)}


def test_bytes_have_their_whole_range_unless_they_are_a_mask_or_an_index() -> None:
    body = "{ a = Cast<to = 1>(x) b = Sub(a, mean) y = Mul(b, scale) }"
    assert _found("uint8[1,8,8,3] x, float[1] mean, float[1] scale", body) == {"x": IntegerValues(256)}
    assert _found("uint8[3] mask", "{ y = Cast<to = 1>(mask) }") == {"mask": IntegerValues(mask=True)}
    assert _found(f"uint8[3] x, {TABLES}", "{ a = Cast<to = 6>(x) y = Gather(words, a) }") == {"x": IntegerValues(30)}


def test_floats_and_integers_without_a_meaning_are_left_out() -> None:
    assert _found("float[3] mask, int64[1] count", "{ a = Cast<to = 1>(count) y = Div(mask, a) }") == {}
    # A name does not make a mask of what indexes a table.
    assert _found(f"int64[3] mask_ids, {TABLES}", "{ y = Gather(words, mask_ids) }") == {"mask_ids": IntegerValues(30)}
