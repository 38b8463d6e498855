"""A convolution unfolded into a dense layer is the same function; one that would not gain by it stays."""

from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.precision import RECIPES
from graphs.onnx.file import load, save
from graphs.passes.pipeline import run_once
from toolkit.convert.quantize.layers import drop_unused, layers
from toolkit.convert.quantize.onnx import LEAST_CHANNELS, quantize_onnx, unfold

Sizes = tuple[int, ...]
CHANNELS = LEAST_CHANNELS


def _model(of: Sizes, kernel: Sizes, more: str = "group = 1", biased: bool = True) -> ir.Model:
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[{",".join(map(str, of))}] x) => (float y) {{ y = Conv<{more}>(x, w{", b" if biased else ""}) }}""")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    scale = np.float32(np.prod(kernel[1:]) ** -0.5)
    constants = {"w": kernel} | ({"b": kernel[:1]} if biased else {})
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32) * scale, name)
        for name, shape in constants.items()
    )
    proto.graph.node[0].name = "conv"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _feeds(of: Sizes) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal(of, dtype=np.float32)}


def _unfolded(model: ir.Model) -> bool:
    (layer,) = layers(model.graph)
    dense = unfold(model.graph, layer)
    drop_unused(model.graph)
    if dense is not None:
        assert (dense.name, dense.dense, [one.name for one in layers(model.graph)]) == ("conv", True, ["conv"])
    return dense is not None


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    biased=st.booleans(),
)
def test_windows_of_every_kernel_and_border(kernel: Sizes, size: Sizes, pads: list[int], biased: bool) -> None:
    of = (1, CHANNELS, *size)
    model = _model(of, (40, CHANNELS, *kernel), f"pads = {pads}", biased)
    expected = run_once(model, _feeds(of), "before")["y"]
    assert _unfolded(model)
    assert "Conv" not in {node.op_type for node in model.graph}
    np.testing.assert_allclose(run_once(model, _feeds(of), "after")["y"], expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(step=st.integers(2, 4), size=st.tuples(st.integers(4, 9), st.integers(4, 9)), biased=st.booleans())
def test_patches_of_every_size_also_where_pixels_are_left(step: int, size: Sizes, biased: bool) -> None:
    of = (1, CHANNELS, *size)
    model = _model(of, (40, CHANNELS, step, step), f"strides = [{step}, {step}]", biased)
    expected = run_once(model, _feeds(of), "before")["y"]
    assert _unfolded(model)
    assert "SpaceToDepth" in {node.op_type for node in model.graph}
    np.testing.assert_allclose(run_once(model, _feeds(of), "after")["y"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("of", "kernel", "more"),
    [
        ((1, CHANNELS - 1, 6, 6), (40, CHANNELS - 1, 3, 3), ""),
        ((2, CHANNELS, 6, 6), (40, CHANNELS, 3, 3), ""),
        ((1, CHANNELS, 6, 6), (40, CHANNELS, 3, 3), "strides = [2, 2]"),
        ((1, CHANNELS, 6, 6), (40, CHANNELS, 2, 2), "strides = [2, 2], pads = [1, 1, 1, 1]"),
        ((1, CHANNELS, 6, 6), (40, CHANNELS, 3, 3), "dilations = [2, 2]"),
        ((1, CHANNELS, 6, 6), (CHANNELS, 1, 6, 6), f"group = {CHANNELS}"),
        ((1, CHANNELS, 6, 6), (40, CHANNELS, 3, 3), 'auto_pad = "SAME_UPPER"'),
    ],
    ids=["few channels", "a batch", "overlapping steps", "padded patches", "dilated", "depthwise", "padded by name"],
)
def test_another_convolution_stays(of: Sizes, kernel: Sizes, more: str) -> None:
    model = _model(of, kernel, more or "group = 1")
    assert not _unfolded(model)
    assert [node.op_type for node in model.graph] == ["Conv"]


def test_dynamic_int8_computes_it_in_eight_bits_and_the_other_recipes_do_not(tmp_path: Path) -> None:
    of = (1, CHANNELS, 6, 6)
    source = save(_model(of, (40, CHANNELS, 3, 3)), tmp_path / "m.onnx")[0]
    expected = run_once(load(source), _feeds(of), "before")["y"]
    for name, integer in (("int8", True), ("int8-w", False), ("fp16", False)):
        made = load(quantize_onnx(source, tmp_path / f"{name}.onnx", RECIPES[name])[0])
        assert ("MatMulInteger" in {node.op_type for node in made.graph}) == integer, name
        got = run_once(made, _feeds(of), "after")["y"]
        assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03, name


def test_a_kernel_of_one_pixel_that_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    """Its order is that of the rows already: what is unmapped must not be what they are."""
    of = (1, CHANNELS, 6, 6)
    source = tmp_path / "m.onnx"
    ir.save(_model(of, (256, CHANNELS, 1, 1)), source, external_data="m.data", size_threshold_bytes=1024)
    assert (tmp_path / "m.data").stat().st_size == 4 * 256 * CHANNELS
    expected = run_once(load(source), _feeds(of), "before")["y"]
    got = run_once(load(quantize_onnx(source, tmp_path / "q.onnx", RECIPES["int8"])[0]), _feeds(of), "after")["y"]
    assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03
