"""The passes for graphs that are about to be lowered: the same results, in operators that TFLite has kernels for."""

from collections import Counter

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.passes.convolution import MOST_TAPS, row_groups, split_depthwise
from graphs.passes.layout import reflect_by_slices
from graphs.passes.norm import write_out_layer_norm
from graphs.passes.pipeline import run_once


def _depthwise(channels: int, size: tuple[int, int], kernel: tuple[int, int], more: str, seed: int) -> ir.Model:
    random = np.random.default_rng(seed)
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[1,{channels},{size[0]},{size[1]}] x) => (float[1,{channels},h,w] y)
    {{ y = Conv<group = {channels}, {more}>(x, w, b) }}"""
    proto = onnx.parser.parse_model(text)
    constants = {"w": (channels, 1, *kernel), "b": (channels,)}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32), name)
        for name, shape in constants.items()
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


_ODD = st.integers(0, 5).map(lambda half: 2 * half + 1)


@settings(max_examples=25, deadline=None)
@given(kernel=st.tuples(_ODD, _ODD), size=st.tuples(st.integers(1, 12), st.integers(1, 12)), channels=st.integers(2, 5))
def test_a_split_depthwise_convolution_computes_the_same_with_fewer_taps(
    kernel: tuple[int, int], size: tuple[int, int], channels: int
) -> None:
    rows, columns = kernel
    pads = f"pads = [{rows // 2}, {columns // 2}, {rows // 2}, {columns // 2}]"
    model = _depthwise(channels, size, kernel, pads, seed=rows + columns)
    feeds = {"x": np.random.default_rng(1).standard_normal((1, channels, *size), dtype=np.float32)}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = split_depthwise(model)
    assert changed == (rows * columns > MOST_TAPS)
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    taps = [np.prod(node.attributes.get_ints("kernel_shape", kernel)) for node in convolutions]
    assert max(taps) <= MOST_TAPS
    assert sum(taps) == rows * columns
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], expected, atol=1e-4)


@pytest.mark.parametrize(
    "more", ["pads = [3, 3, 3, 3], strides = [2, 2]", "pads = [6, 6, 6, 6], dilations = [2, 2]", "pads = [3, 3, 2, 2]"]
)
def test_a_depthwise_convolution_that_changes_its_map_stays(more: str) -> None:
    assert not split_depthwise(_depthwise(4, (16, 16), (7, 7), more, seed=0))[1]


@given(rows=_ODD, most=st.integers(2, 12))
def test_groups_of_rows_are_every_row_once_and_evenly_spaced_around_the_middle(rows: int, most: int) -> None:
    groups = row_groups(rows, most)
    assert sorted(row for group in groups for row in group) == list(range(-(rows // 2), rows // 2 + 1))
    for group in groups:
        assert 1 <= len(group) <= most
        assert group[0] == -group[-1]


_NORM = """<ir_version: 10, opset_import: ["": 20]>
g (float[2,3,8] x) => (float[2,3,8] y) { y = LayerNormalization<axis = AXIS, epsilon = 0.001>(x, scale, shift) }"""


@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [
        (1.0, 0.0, {"Mul": 2, "Add": 1}),
        (2.0, 0.0, {"Mul": 3, "Add": 1}),
        (1.0, 3.0, {"Mul": 2, "Add": 2}),
        (2.0, 3.0, {"Mul": 3, "Add": 2}),
    ],
)
def test_a_written_out_norm_has_no_operator_that_does_nothing(
    scale: float, shift: float, expected: dict[str, int]
) -> None:
    proto = onnx.parser.parse_model(_NORM.replace("AXIS", "-1"))
    for name, value in {"scale": scale, "shift": shift}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full(8, value, np.float32), name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8), dtype=np.float32)}
    before = run_once(model, feeds, "before")["y"]
    model, changed = write_out_layer_norm(model)
    found = Counter(node.op_type for node in model.graph)
    assert changed
    assert {name: found[name] for name in expected} == expected
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], before, atol=1e-5)


def test_a_norm_over_more_than_the_last_axis_stays() -> None:
    proto = onnx.parser.parse_model(_NORM.replace("AXIS", "1"))
    for name, value in {"scale": 1, "shift": 0}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full((3, 8), value, np.float32), name))
    assert not write_out_layer_norm(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))[1]


def _padded(pads: list[int], more: str = "") -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[1,2,5,4] x) => (float[a,b,c,d] y)
    <int64[{len(pads)}] pads = {{ {", ".join(map(str, pads))} }}, int64[2] axes = {{ 3, -2 }}>
    {{ y = Pad<mode = "reflect">(x, pads{more}) }}"""
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize(
    ("pads", "more"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], ""),
        ([0, 0, 1, 0, 0, 0, 0, 1], ""),
        ([0, 1, 0, 0, 0, 1, 0, 0], ""),
        ([1, 0, 0, 1], ", , axes"),
    ],
    ids=["all sides", "two sides", "channels", "named axes"],
)
def test_a_reflected_border_of_one_pixel_is_the_same_bits_without_a_pad(pads: list[int], more: str) -> None:
    model = _padded(pads, more)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 5, 4), dtype=np.float32)}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = reflect_by_slices(model)
    assert changed
    assert "Pad" not in {node.op_type for node in model.graph}
    np.testing.assert_array_equal(run_once(model, feeds, "after")["y"], expected)


@pytest.mark.parametrize("pads", [[0, 0, 2, 2, 0, 0, 2, 2], [0, 0, 0, 0, 0, 0, -1, 0], [0] * 8])
def test_a_border_that_is_wider_or_missing_stays_a_pad(pads: list[int]) -> None:
    assert not reflect_by_slices(_padded(pads))[1]


def test_an_odd_number_of_rows_a_group_is_used_up() -> None:
    assert [list(group) for group in row_groups(7, 3)] == [[-3, 0, 3], [-2, 2], [-1, 1]]
