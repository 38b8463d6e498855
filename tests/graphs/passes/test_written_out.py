"""Operators that onnx2tf lowers wrongly or not at all become operators that it lowers, and compute the same."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from graphs.onnx.sizes import infer_shapes, name_found_axes
from graphs.passes.activation import write_out_prelu, write_out_tanh_gelu
from graphs.passes.einsum import read_equation, write_out_einsum
from graphs.passes.lowering import fill_found_rows, state_boxes_for_search
from graphs.passes.pipeline import run_once, run_pass
from graphs.passes.registry import GraphPass
from graphs.passes.sampling import (
    nearest_resize_to_gather,
    part_backward_slices,
    reflect_grid,
    smooth_resize_to_products,
    write_out_cubic_grid,
)


def _model(text: str, **constants: object) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()
    )
    return infer_shapes(ir.from_proto(proto))


def _check(step: GraphPass, model: ir.Model, expected: set[str] | None, tolerance: float = 0.0) -> ir.Model:
    """Run a pass and compare the outputs. expected: the operators afterwards, or None for a graph that stays."""
    random = np.random.default_rng(0)
    feeds = {
        str(value.name): random.normal(0, 1.5, [int(size) for size in value.shape or ()]).astype(np.float32)
        for value in model.graph.inputs
    }
    before = run_once(model, feeds, "before")
    model, changed = run_pass(step, model)
    assert changed == (expected is not None)
    if expected is not None:
        assert {node.op_type for node in model.graph} == expected
    after = run_once(model, feeds, "after")
    for name, values in before.items():
        assert after[name].shape == values.shape
        np.testing.assert_allclose(after[name], values, rtol=0, atol=tolerance)
    return model


def test_tanh_gelu_is_written_out_and_the_exact_one_stays() -> None:
    text = '(float[4,64] x) => (float[4,64] y) { y = Gelu<approximate="KIND">(x) }'
    _check(write_out_tanh_gelu, _model(text.replace("KIND", "tanh")), {"Mul", "Add", "Tanh"}, 1e-6)
    _check(write_out_tanh_gelu, _model(text.replace("KIND", "none")), None)


@pytest.mark.parametrize(
    ("shape", "slope", "is_written"),
    [
        ((1, 8, 30), (8, 1), True),
        ((1, 8, 30), (1, 8, 1), True),
        ((1, 8, 30), (1,), False),
        ((1, 8, 9, 8), (8, 1, 1), False),
        ((1, 8, 9, 8), (8,), True),  # along the last axis, which has as many entries as there are channels
        ((4, 8), (8,), False),
        ((1, 2, 3, 4, 5), (2, 1, 1, 1), True),
    ],
)
def test_prelu_is_written_out_where_the_lowering_has_none(
    shape: tuple[int, ...], slope: tuple[int, ...], is_written: bool
) -> None:
    values = np.random.default_rng(1).normal(0, 1, slope).astype(np.float32)
    model = _model(f"(float{list(shape)} x) => (float{list(shape)} y) {{ y = PRelu(x, s) }}", s=values)
    _check(write_out_prelu, model, {"Relu", "Min", "Mul", "Add"} if is_written else None)


_LEAST = -(2**63) + 1


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps", "expected"),
    [
        ([-1], [_LEAST], [2], [-1], None),
        ([-1, -1], [_LEAST, _LEAST], [2, 3], [-1, -1], {"Slice"}),
        ([8], [1], [3], [-2], {"Gather"}),
        ([-2], [-9], [-1], [-3], {"Gather"}),
        ([1, -1], [3, _LEAST], [1, 2], [1, -1], {"Slice"}),
        ([1, 5, 0], [3, 0, 7], [1, 2, 3], [1, -1, 2], {"Slice", "Gather"}),
        ([0], [3], [1], [2], None),
    ],
)
def test_a_backward_slice_becomes_one_operator_for_each_axis(
    starts: list[int], ends: list[int], axes: list[int], steps: list[int], expected: set[str] | None
) -> None:
    numbers = {name: np.array(v, np.int64) for name, v in (("a", starts), ("b", ends), ("c", axes), ("d", steps))}
    model = _model("(float[1,4,7,10] x) => (float[n,c,h,w] y) { y = Slice(x, a, b, c, d) }", **numbers)
    changed = _check(part_backward_slices, model, expected)
    backward = [node for node in changed.graph if node.op_type == "Slice" and node.outputs[0].name != "y_forward"]
    if expected is not None:
        assert all(node.inputs[1] is not None and node.inputs[1].const_value is not None for node in backward)
        assert all(node.inputs[1].const_value.size == 1 for node in backward)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(
    ("size", "is_smaller"), [("1,4,16,20", True), ("1,4,32,20", True), ("1,4,40,20", True), ("1,4,48,64", False)]
)
def test_a_smooth_resize_becomes_products(mode: str, size: str, is_smaller: bool) -> None:
    text = f'(float[1,4,32,32] x) => (float[{size}] y) {{ y = Resize<mode="{mode}", antialias=1>(x, , , sizes) }}'
    model = _model(text, sizes=np.array([int(n) for n in size.split(",")], np.int64))
    _check(smooth_resize_to_products, model, {"MatMul"} if is_smaller else None, 1e-6)


def test_a_smooth_resize_by_scales_of_some_axes_and_one_without_antialias() -> None:
    text = "(float[1,4,32,33] x) => (float[1,4,22,16] y) { y = Resize<MORE, axes=[2,3]>(x, , scales) }"
    scales = np.array([0.7, 0.5], np.float32)
    smooth = text.replace("MORE", 'mode="linear", antialias=1')
    _check(smooth_resize_to_products, _model(smooth, scales=scales), {"MatMul"}, 1e-6)
    _check(smooth_resize_to_products, _model(text.replace("MORE", 'mode="linear"'), scales=scales), None)


@pytest.mark.parametrize(
    ("places", "rounding", "is_written"),
    [
        ("asymmetric", "floor", False),
        ("half_pixel", "round_prefer_ceil", False),
        ("half_pixel", "ceil", True),
        ("asymmetric", "round_prefer_ceil", True),
        ("align_corners", "round_prefer_floor", True),
        ("pytorch_half_pixel", "floor", True),
    ],
)
@pytest.mark.parametrize("size", ["1,4,16,31", "1,4,7,9"])
def test_a_resize_to_the_nearest_pixel_becomes_a_gather(
    places: str, rounding: str, is_written: bool, size: str
) -> None:
    text = f"""(float[1,4,10,13] x) => (float[{size}] y)
    {{ y = Resize<coordinate_transformation_mode="{places}", nearest_mode="{rounding}">(x, , , sizes) }}"""
    model = _model(text, sizes=np.array([int(n) for n in size.split(",")], np.int64))
    _check(nearest_resize_to_gather, model, {"Gather"} if is_written else None)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize(("mode", "is_written"), [("linear", True), ("nearest", True), ("cubic", False)])
def test_a_reflected_grid_is_reflected_before(mode: str, corners: int, is_written: bool) -> None:
    text = f"""(float[1,4,9,11] x, float[1,7,8,2] g) => (float[1,4,7,8] y)
    {{ y = GridSample<mode="{mode}", padding_mode="reflection", align_corners={corners}>(x, g) }}"""
    operators = {"Add", "Abs", "Mul", "Floor", "Sub", "Min", "GridSample"}
    _check(reflect_grid, _model(text), operators if is_written else None, 1e-5)


_CUBIC = {
    "Reshape", "Add", "Mul", "Floor", "Sub", "Max", "Min", "Slice", "Transpose", "Cast", "Gather", "MatMul",
}  # fmt: skip
_PADDED = {"zeros": {"Equal"}, "border": set[str](), "reflection": {"Abs", "Div"}}


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("sizes", [(1, 4, 9, 11), (3, 2, 5, 1)])
def test_a_cubic_grid_is_written_out_with_the_numbers_of_torch(
    sizes: tuple[int, ...], padding: str, corners: bool
) -> None:
    text = f"""(float[{",".join(map(str, sizes))}] x, float[{sizes[0]},7,8,2] g) => (float[n,c,7,8] y)
    {{ y = GridSample<mode="cubic", padding_mode="{padding}", align_corners={int(corners)}>(x, g) }}"""
    model, changed = run_pass(write_out_cubic_grid, _model(text))
    assert changed
    assert {node.op_type for node in model.graph} - {"Sub"} == (_CUBIC | _PADDED[padding]) - {"Sub"}
    random = np.random.default_rng(3)
    x, g = random.normal(size=sizes).astype(np.float32), random.uniform(-3, 3, (sizes[0], 7, 8, 2)).astype(np.float32)
    expected = functional.grid_sample(torch.tensor(x), torch.tensor(g), "bicubic", padding, corners).numpy()
    np.testing.assert_allclose(run_once(model, {"x": x, "g": g}, "after")["y"], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("sizes", "mode"), [((1, 4, 9, 11), "linear"), ((1, 1, 4097, 4096), "cubic"), (("n", 4, 9, 11), "cubic")]
)
def test_another_grid_one_of_too_many_pixels_and_one_of_open_sizes_stay(
    sizes: tuple[int | str, ...], mode: str
) -> None:
    text = f"""(float[{",".join(map(str, sizes))}] x, float[1,7,8,2] g) => (float[1,c,7,8] y)
    {{ y = GridSample<mode="{mode}">(x, g) }}"""
    assert not run_pass(write_out_cubic_grid, _model(text))[1]


_SEARCH = """(float[2,6,4] b, float[2,3,6] s) => (int64[n,3] y, float[m,4] found) {
    y = NonMaxSuppression<center_point_box = CENTRED>(b, s, k, t, least)
    place = Slice(y, two, three, one)
    first = Squeeze(place, one)
    boxes = Slice(b, zero, one, zero)
    rows = Squeeze(boxes, zero)
    found = Gather<axis = 0>(rows, first)
}"""


def _search(centred: int, threshold: float = 0.5, **more: object) -> ir.Model:
    sizes = {"zero": [0], "one": [1], "two": [2], "three": [3]}
    constants = {
        "k": [2],
        "t": np.array([threshold], np.float32),
        "least": np.array([0.2], np.float32),
        **sizes,
        **more,
    }
    return _model(_SEARCH.replace("CENTRED", str(centred)), **constants)


_BOXES = [[0, 0, 2, 2], [0, 0, 2, 4], [5, 5, 5, 9], [5, 5, 5, 9], [9, 9, 1, 1], [0, 1, 2, 5]]


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_a_search_gets_corners_with_an_area_and_chooses_the_same(centred: int, threshold: float) -> None:
    model = name_found_axes(_search(centred, threshold))
    scores = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, 36)).reshape(2, 3, 6).astype(np.float32)
    feeds = {"b": np.array([_BOXES, _BOXES[::-1]], np.float32), "s": scores}
    before = run_once(model, feeds, "before")
    model, changed = run_pass(state_boxes_for_search, model)
    assert changed
    (node,) = (node for node in model.graph if node.op_type == "NonMaxSuppression")
    assert node.attributes["center_point_box"].value == 0
    outputs = [node.inputs[0], *model.graph.outputs]
    assert outputs[0] is not None
    model.graph.outputs.append(outputs[0])
    after = run_once(model, feeds, "after")
    corners = after.pop(str(outputs[0].name))
    np.testing.assert_array_equal(after["y"], before["y"])
    assert len(after["y"]) > 6
    assert (corners[..., :2] != corners[..., 2:]).all()  # LiteRT chooses a box without an area again and again
    least = node.inputs[3]
    assert least is not None
    assert least.const_value is not None
    assert 0 < float(least.const_value.numpy().item()) <= 1
    assert threshold in (1, 0) or least.const_value.numpy().item() > threshold


def test_found_rows_are_filled_up_to_the_largest_number() -> None:
    model = name_found_axes(_search(0))
    feeds = {"b": np.array([_BOXES, _BOXES], np.float32), "s": np.full((2, 3, 6), 0.1, np.float32)}
    feeds["s"][1, 2, :] = 0.9 - 0.1 * np.arange(6, dtype=np.float32)
    before = run_once(model, feeds, "before")
    model, changed = run_pass(fill_found_rows, model)
    assert changed
    sizes = {str(value.name): list(value.shape or ()) for value in model.graph.outputs}
    assert sizes == {"y": [12, 3], "found": [12, 4]}  # two of each class of each image
    after = run_once(model, feeds, "after")
    for name, rest in (("y", -1), ("found", 0)):
        count = len(before[name])
        assert count == 2
        np.testing.assert_array_equal(after[name][:count], before[name])
        assert (after[name][count:] == rest).all()


@pytest.mark.parametrize("most", [[0], None])
def test_a_search_without_a_largest_number_stays(most: list[int] | None) -> None:
    given = {"k": most} if most else {}
    model = (
        _search(0, **given) if most else _model(_SEARCH.replace("CENTRED", "0").replace("s) =>", "s, int64[1] k) =>"))
    )
    model = name_found_axes(model)
    assert not run_pass(state_boxes_for_search, model)[1]
    assert not run_pass(fill_found_rows, model)[1]


_EQUATIONS = [
    ("abc,c->ab", "2,3,4", "4", "2,3"),
    ("...ij,...jk->...ik", "2,3,4", "2,4,5", "2,3,5"),
    ("...ij,jk", "2,3,4", "4,5", "2,3,5"),
    ("ij,kj", "3,4", "5,4", "3,5"),
    ("bii,i->b", "2,4,4", "4", "2"),
    ("i,ij->j", "4", "4,5", "5"),
    ("a...,b...->...ab", "2,3", "5,3", "3,2,5"),
    ("...a,...a->...", "1,3,4", "2,3,4", "2,3"),
]


@pytest.mark.parametrize(("equation", "a", "b", "out"), _EQUATIONS)
def test_an_einsum_of_two_operands_is_written_out(equation: str, a: str, b: str, out: str) -> None:
    model = _model(f'(float[{a}] a, float[{b}] b) => (float[{out}] y) {{ y = Einsum<equation="{equation}">(a, b) }}')
    changed, _ = run_pass(write_out_einsum, model.clone())
    operators = {node.op_type for node in changed.graph}
    assert "Einsum" not in operators
    _check(write_out_einsum, model, operators, 1e-5)


@pytest.mark.parametrize(
    ("equation", "inputs", "out"),
    [
        ("ij,jk,kl->il", ("3,4", "4,5", "5,6"), "3,6"),
        ("bii->bi", ("3,4,4",), "3,4"),
        ("ij->ji", ("3,4",), "4,3"),
        ("iij->", ("3,3,4",), ""),
        ("a,b,c->cab", ("2", "3", "4"), "4,2,3"),
        ("abca->cb", ("2,3,4,2",), "4,3"),
    ],
)
def test_an_einsum_of_other_numbers_of_operands_is_written_out(
    equation: str, inputs: tuple[str, ...], out: str
) -> None:
    names = "abc"[: len(inputs)]
    given = ", ".join(f"float[{sizes}] {name}" for name, sizes in zip(names, inputs, strict=True))
    shape = f"float[{out}] y" if out else "float y"
    model = _model(f'({given}) => ({shape}) {{ y = Einsum<equation="{equation}">({", ".join(names)}) }}')
    changed, _ = run_pass(write_out_einsum, model.clone())
    operators = {node.op_type for node in changed.graph}
    assert "Einsum" not in operators
    _check(write_out_einsum, model, operators, 1e-5)


@pytest.mark.parametrize("equation", ["bij,bjk->bik", "i,j->ij", "bcxd,byhd->bchxy", "ij,jk->k"])
def test_an_einsum_that_the_lowering_takes_stays(equation: str) -> None:
    terms = equation.split("->")[0].split(",")
    sizes = [",".join("2" for _ in term) for term in terms]
    out = ",".join("2" for _ in equation.split("->")[1])
    text = (
        f'(float[{sizes[0]}] a, float[{sizes[1]}] b) => (float[{out}] y) {{ y = Einsum<equation="{equation}">(a, b) }}'
    )
    _check(write_out_einsum, _model(text), None)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_equation_gives_what_numpy_gives(data: st.DataObject) -> None:
    sizes = dict(zip("abcd", (2, 3, 4, 5), strict=True))
    terms = data.draw(st.lists(st.text("abcd", min_size=1, max_size=3), min_size=1, max_size=3))
    present = sorted(set("".join(terms)))
    result = "".join(data.draw(st.permutations(present))[: data.draw(st.integers(1, len(present)))])
    random = np.random.default_rng(0)
    arrays = [random.normal(size=[sizes[letter] for letter in term]).astype(np.float32) for term in terms]
    given = ", ".join(f"float[{','.join(str(n) for n in a.shape)}] x{i}" for i, a in enumerate(arrays))
    out = ",".join(str(sizes[letter]) for letter in result)
    names = [f"x{i}" for i in range(len(terms))]
    equation = f"{','.join(terms)}->{result}"
    model = _model(f'({given}) => (float[{out}] y) {{ y = Einsum<equation="{equation}">({", ".join(names)}) }}')
    model, _ = run_pass(write_out_einsum, model)
    got = run_once(model, dict(zip(names, arrays, strict=True)), "after")["y"]
    np.testing.assert_allclose(got, np.einsum(equation, *arrays), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("equation", ["ij,jk->iz", "ij->ij,k", "ij,j k->ii", "i1,jk->ik", "ijk,jk->i"])
def test_an_equation_that_does_not_fit_is_not_read(equation: str) -> None:
    assert read_equation(equation, [2, 2]) is None
