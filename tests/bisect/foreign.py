"""A graph of somebody else's, with a branch through each pass that foreign graphs alone have, and layers behind it."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from backends.bundle import Bundle
from tests.shared import made_once
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules

_GRAPH = """<ir_version: 10, opset_import: ["": 20]>
foreign (float[1,4,6,6] image, float[2,3,8] rows, int8[6] a, int8[6] b)
=> (float[1,4,6,6] normed_out, float[1,4,6,6] elu_out, float[2,3,8] lp_out, float[2,3,8] logs_out,
    float[2,3,8] bound_out, float[6] small_out, float[2,3,8] split_left, float[2,3,8] split_right,
    float[1,2,2,6,6] axes_out, float[2,3,8] channels_out)
<float tiny = {1e-12}, int64[2] sizes = {3, 5}, int64[5] five = {1, 2, 2, 6, 6}>
{
  normed_in = Conv<pads = [1, 1, 1, 1]>(image, normed_w_first)
  normed = BatchNormalization(normed_in, scale, shift, mean, variance)
  normed_out = Conv<pads = [1, 1, 1, 1]>(normed, normed_w_last)

  elu_in = Conv<pads = [1, 1, 1, 1]>(image, elu_w_first)
  elu = Elu<alpha = 2.0>(elu_in)
  elu_out = Conv<pads = [1, 1, 1, 1]>(elu, elu_w_last)

  lp_in = MatMul(rows, lp_w_first)
  lp = LpNormalization<axis = 1, p = 2>(lp_in)
  lp_out = MatMul(lp, lp_w_last)

  logs_in = MatMul(rows, logs_w_first)
  logs = LogSoftmax<axis = 1>(logs_in)
  logs_out = MatMul(logs, logs_w_last)

  bound_in = MatMul(rows, bound_w_first)
  bound = Max(bound_in, tiny)
  bound_out = MatMul(bound, bound_w_last)

  small_sum = Add(a, b)
  small = Mul(small_sum, a)
  small_float = Cast<to = 1>(small)
  small_out = Mul(small_float, small_w_last)

  split_in = MatMul(rows, split_w_first)
  left, right = Split<axis = 2>(split_in, sizes)
  split_left = MatMul(left, split_w_left)
  split_right = MatMul(right, split_w_right)

  axes_in = Conv<pads = [1, 1, 1, 1]>(image, axes_w_first)
  axes_map = Sigmoid(axes_in)
  axes = Reshape(axes_map, five)
  axes_out = Mul(axes, axes_w_last)

  channels_in = Conv<pads = [1, 1]>(rows, channels_w_first)
  channels = Sigmoid(channels_in)
  channels_out = Mul(channels, channels_w_last)
}"""
_MAP, _DENSE = (4, 4, 3, 3), (8, 8)
_WEIGHTS = {
    "normed_w_first": _MAP, "normed_w_last": _MAP, "scale": (4,), "shift": (4,), "mean": (4,), "variance": (4,),
    "elu_w_first": _MAP, "elu_w_last": _MAP, "lp_w_first": _DENSE, "lp_w_last": _DENSE, "bound_w_first": _DENSE,
    "bound_w_last": _DENSE, "small_w_last": (6,), "split_w_first": _DENSE, "split_w_left": (3, 8),
    "split_w_right": (5, 8), "axes_w_first": _MAP, "axes_w_last": (1, 2, 1, 1, 1), "channels_w_first": (3, 3, 3),
    "channels_w_last": (3, 1), "logs_w_first": _DENSE, "logs_w_last": _DENSE,
}  # fmt: skip


def _source(path: Path) -> Path:
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(_GRAPH)
    for name, shape in _WEIGHTS.items():
        values = random.uniform(0.5, 1.5, shape) if len(shape) < 2 else random.standard_normal(shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, path)
    return path


def _made(folder: Path) -> None:
    import_model(_source(folder / "foreign.onnx"), folder / "foreign", {})
    convert_bundle(folder / "foreign", conversion_rules, ("fp32",), strict=True)


def foreign(folder: Path) -> Bundle:
    """A copy of the bundle, free to be damaged."""
    shutil.copytree(made_once("foreign", _made) / "foreign", folder / "foreign")
    return Bundle.open(folder / "foreign")
