"""Convolutions rewritten for TFLite: the same results, from patches as depth and from a kernel by its rows."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.passes import convolution as large_conv
from graphs.passes.convolution import patches_to_depth, split_large_conv, transposed_to_conv
from graphs.passes.pipeline import run_once

Sizes = tuple[int, ...]


def _conv(of: Sizes, kernel: Sizes, more: str = "", biased: bool = True, operator: str = "Conv") -> ir.Model:
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[{",".join(map(str, of))}] x) => (float[n,c,h,w] y)
    {{ y = {operator}<{more or "group = 1"}>(x, w{", b" if biased else ""}) }}""")
    constants = {"w": kernel} | ({"b": kernel[:1] if operator == "Conv" else kernel[1:2]} if biased else {})
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32), name)
        for name, shape in constants.items()
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _read(model: ir.Model) -> set[str | None]:
    """The names of what the nodes read."""
    return {value.name for node in model.graph for value in node.inputs if value is not None}


def _feeds(of: Sizes) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal(of, dtype=np.float32)}


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(2, 5),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    batch=st.integers(1, 2),
    channels=st.integers(1, 4),
    biased=st.booleans(),
)
def test_patches_as_depth_give_the_same_product(
    size: int, rows: int, columns: int, batch: int, channels: int, biased: bool
) -> None:
    of = (batch, channels, rows * size, columns * size)
    model = _conv(of, (6, channels, size, size), f"strides = [{size}, {size}]", biased)
    expected = run_once(model, _feeds(of), "before")["y"]
    model, changed = patches_to_depth(model)
    assert changed
    assert [node.op_type for node in model.graph] == ["SpaceToDepth", "Conv"]
    assert "w" not in _read(model)
    np.testing.assert_allclose(run_once(model, _feeds(of), "after")["y"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("of", "kernel", "more"),
    [
        ((1, 3, 9, 8), (4, 3, 2, 2), "strides = [2, 2]"),
        ((1, 3, 8, 8), (4, 3, 3, 3), "strides = [2, 2]"),
        ((1, 3, 8, 8), (4, 3, 2, 4), "strides = [2, 4]"),
        ((1, 3, 6, 6), (4, 3, 2, 2), "strides = [2, 2], pads = [1, 1, 1, 1]"),
        ((1, 3, 8, 8), (4, 3, 2, 2), 'strides = [2, 2], auto_pad = "SAME_UPPER"'),
        ((1, 3, 8, 8), (4, 3, 2, 2), "strides = [2, 2], dilations = [2, 2]"),
        ((1, 4, 8, 8), (4, 1, 2, 2), "strides = [2, 2], group = 4"),
        ((1, 3, 8, 8), (4, 3, 1, 1), ""),
    ],
    ids=["a rest", "overlap", "oblong", "padded", "padded by name", "dilated", "grouped", "one pixel"],
)
def test_what_are_no_patches_stays(of: Sizes, kernel: Sizes, more: str) -> None:
    assert not patches_to_depth(_conv(of, kernel, more))[1]


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(2, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    biased=st.booleans(),
)
def test_a_large_convolution_is_the_sum_of_its_rows(kernel: Sizes, size: Sizes, biased: bool) -> None:
    channels = large_conv.MOST_WEIGHTS // (kernel[0] * kernel[1]) + 1
    of = (1, channels, *size)
    model = _conv(of, (2, channels, *kernel), biased=biased)
    expected = run_once(model, _feeds(of), "before")["y"]
    model, changed = split_large_conv(model)
    assert changed
    kernels = [node.attributes.get_ints("kernel_shape") for node in model.graph if node.op_type == "Conv"]
    assert kernels == [(1, kernel[1])] * kernel[0]
    assert "w" not in _read(model)
    np.testing.assert_allclose(run_once(model, _feeds(of), "after")["y"], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("kernel", "more"),
    [
        ((2, 1820, 3, 3), ""),
        ((2, 1821, 3, 3), "pads = [1, 1, 1, 1]"),
        ((2, 1821, 3, 3), "strides = [2, 2]"),
        ((2, 1821, 3, 3), "dilations = [2, 2]"),
        ((2, 5462, 1, 3), ""),
    ],
    ids=["small enough", "padded", "skipping", "dilated", "one row"],
)
def test_another_convolution_stays(kernel: Sizes, more: str) -> None:
    assert not split_large_conv(_conv((1, kernel[1], 7, 7), kernel, more))[1]


@settings(max_examples=40, deadline=None)
@given(
    step=st.integers(2, 4),
    taps=st.integers(1, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batch=st.integers(1, 2),
    biased=st.booleans(),
    data=st.data(),
)
def test_a_transposed_convolution_is_one_with_its_outputs_in_depth(
    step: int, taps: int, size: Sizes, batch: int, biased: bool, data: st.DataObject
) -> None:
    kernel = step * taps
    # What is cut off leaves at least a pixel.
    pads = data.draw(st.lists(st.integers(0, (kernel - 1) // 2), min_size=4, max_size=4))
    more = [data.draw(st.integers(0, min(end, step - 1))) for end in pads[2:]]
    attributes = f"strides = [{step}, {step}], pads = {pads}, output_padding = {more}"
    of = (batch, 3, *size)
    model = _conv(of, (3, 5, kernel, kernel), attributes, biased, "ConvTranspose")
    expected = run_once(model, _feeds(of), "before")["y"]
    model, changed = transposed_to_conv(model)
    assert changed
    assert {node.op_type for node in model.graph} <= {"Conv", "DepthToSpace", "Slice"}
    assert not {"w", "b"} & _read(model)
    np.testing.assert_allclose(run_once(model, _feeds(of), "after")["y"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "more"),
    [
        ((3, 4, 3, 3), "strides = [2, 2]"),
        ((3, 4, 2, 4), "strides = [2, 2]"),
        ((3, 4, 4, 4), "strides = [2, 4]"),
        ((3, 4, 4, 4), ""),
        ((3, 4, 4, 4), "strides = [2, 2], dilations = [2, 2]"),
        ((3, 4, 4, 4), "strides = [2, 2], output_padding = [1, 0]"),
        ((3, 4, 4, 4), "strides = [2, 2], output_shape = [9, 9]"),
        ((3, 4, 4, 4), 'strides = [2, 2], auto_pad = "SAME_UPPER"'),
        ((3, 1, 4, 4), "strides = [2, 2], group = 3"),
    ],
)
def test_another_transposed_convolution_stays(kernel: Sizes, more: str) -> None:
    model = _conv((1, 3, 4, 4), kernel, more, biased=False, operator="ConvTranspose")
    assert not transposed_to_conv(model)[1]
