"""Constants that are no weights of dense layers: every file has about the size that its precision says."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from backends.precision import RECIPES
from backends.tensor import Array
from toolkit.convert.quantize.onnx import quantize_onnx
from toolkit.convert.weights import shares, stored_weights

# Name -> the graph, and the shapes of its constants.
LAYERS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "Gather": ("(int64[1,6] ids) => (float[1,6,64] y) { y = Gather(w, ids) }", {"w": (500, 64)}),
    "Gather of columns": ("(int64[6] ids) => (float[64,6] y) { y = Gather<axis = 1>(w, ids) }", {"w": (64, 500)}),
    "Gather twice": (
        """(int64[1,6] ids) => (float[1,6,64] y) <int64[1,6] one = {3, 1, 4, 1, 5, 499}> {
            a = Gather(w, ids)
            b = Gather<axis = -2>(w, one)
            y = Add(a, b)
        }""",
        {"w": (500, 64)},
    ),
    "ConvTranspose": (
        "(float[1,32,5,5] x) => (float[1,48,10,10] y) { y = ConvTranspose<strides = [2, 2]>(x, w) }",
        {"w": (32, 48, 2, 2)},
    ),
    "Conv3d": ("(float[1,8,4,6,6] x) => (float[1,24,2,4,4] y) { y = Conv(x, w) }", {"w": (24, 8, 3, 3, 3)}),
    "Conv1d": ("(float[1,32,40] x) => (float[1,48,38] y) { y = Conv(x, w) }", {"w": (48, 32, 3)}),
    "LSTM": (
        "(float[7,1,32] x) => (float[7,1,1,32] y) { y = LSTM<hidden_size = 32>(x, w, r) }",
        {"w": (1, 128, 32), "r": (1, 128, 32)},
    ),
    "GRU": (
        """(float[7,1,32] x) => (float[7,2,1,32] y) {
            y = GRU<hidden_size = 32, direction = "bidirectional">(x, w, r)
        }""",
        {"w": (2, 96, 32), "r": (2, 96, 32)},
    ),
    "MatMul of a stack": ("(float[4,6,32] x) => (float[4,6,48] y) { y = MatMul(x, w) }", {"w": (4, 32, 48)}),
    "MatMul from the left": ("(float[1,32,6] x) => (float[1,160,6] y) { y = MatMul(w, x) }", {"w": (160, 32)}),
    "a small Conv": ("(float[1,8,6,6] x) => (float[1,8,4,4] y) { y = Conv(x, w) }", {"w": (8, 8, 3, 3)}),
    "a small ConvTranspose": (
        "(float[1,8,6,6] x) => (float[1,8,12,12] y) { y = ConvTranspose<strides = [2, 2]>(x, w) }",
        {"w": (8, 8, 2, 2)},
    ),
}  # fmt: skip


def _saved(folder: Path, text: str, constants: dict[str, Array]) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _normal(shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def _run(path: Path) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    feeds = {
        given.name: rng.integers(0, 500, given.shape)
        if given.type == "tensor(int64)"
        else rng.normal(0, 1, given.shape).astype(np.float32)
        for given in session.get_inputs()
    }
    result: Array = session.run(None, feeds)[0]
    return result


def _kernels(path: Path, folder: Path) -> Counter[str]:
    """The operators that run, after what the runtime computes when it loads the file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def _error(got: Array, expected: Array) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("precision", "dtype", "share", "error"),
    [("fp16", "float16", 1.0, 4e-4), ("int8-w", "int8", 0.86, 0.012), ("int8", "int8", 0.86, 0.02)],
)
def test_a_weight_is_stored_in_the_type_of_the_precision(
    name: str, precision: str, dtype: str, share: float, error: float, tmp_path: Path
) -> None:
    text, shapes = LAYERS[name]
    source = _saved(tmp_path, text, _normal(shapes))
    (made,) = quantize_onnx(source, tmp_path / "made.onnx", RECIPES[precision])
    found = dict(shares(stored_weights(made)))
    assert found[dtype] >= share
    assert 0 < _error(_run(made), _run(source)) < error


@pytest.mark.parametrize("precision", ["fp16", "int8-w"])
@pytest.mark.parametrize("name", [name for name in LAYERS if "Gather" not in name])
def test_nothing_is_left_of_it_at_run_time(name: str, precision: str, tmp_path: Path) -> None:
    text, shapes = LAYERS[name]
    source = _saved(tmp_path, text, _normal(shapes))
    (made,) = quantize_onnx(source, tmp_path / "made.onnx", RECIPES[precision])
    assert _kernels(made, tmp_path) == _kernels(source, tmp_path)


def test_a_table_stays_small_in_memory_and_is_nearer_than_by_the_runtimes_own_quantizer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = (rng.normal(0, 0.03, (3000, 64)) * np.exp(rng.normal(0, 0.4, (3000, 1)))).astype(np.float32)
    source = _saved(tmp_path, "(int64[1,500] ids) => (float[1,500,64] y) { y = Gather(w, ids) }", {"w": table})
    (ours,) = quantize_onnx(source, tmp_path / "ours.onnx", RECIPES["int8"])
    quantize_dynamic(source, tmp_path / "theirs.onnx", weight_type=QuantType.QInt8, op_types_to_quantize=["Gather"])
    expected = _run(source)
    assert _error(_run(ours), expected) < 0.008
    assert _error(_run(tmp_path / "theirs.onnx"), expected) > 0.02
    assert ours.stat().st_size < 1.07 * (tmp_path / "theirs.onnx").stat().st_size < 0.28 * source.stat().st_size
    assert _kernels(ours, tmp_path) == {"Gather": 2, "Cast": 1, "Mul": 1}


def test_learned_positions_become_float16_beside_int8_weights(tmp_path: Path) -> None:
    text = "(float[1,100,64] x) => (float[1,100,64] y) { h = Add(x, p) y = MatMul(h, w) }"
    source = _saved(tmp_path, text, _normal({"p": (1, 100, 64), "w": (64, 64)}))
    (made,) = quantize_onnx(source, tmp_path / "made.onnx", RECIPES["int8"])
    assert dict(stored_weights(made))["float16", "Cast"] == 2 * 6400
    assert 0 < _error(_run(made), _run(source)) < 0.02


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_floor_of_a_mask_is_not_made_infinite(precision: str, tmp_path: Path) -> None:
    text = "(float[1,80,80] x) => (float[1,80,64] y) { h = Add(x, p) a = Softmax(h) y = MatMul(a, w) }"
    constants = _normal({"p": (1, 80, 80), "w": (80, 64)})
    constants["p"][0][np.triu_indices(80, 1)] = np.finfo(np.float32).min
    source = _saved(tmp_path, text, constants)
    (made,) = quantize_onnx(source, tmp_path / "made.onnx", RECIPES[precision])
    assert stored_weights(made)["float32", "Add"] == 4 * 6400
    assert 0 < _error(_run(made), _run(source)) < 0.03


def test_scales_that_other_layers_brought_stay_float32(tmp_path: Path) -> None:
    """A float16 cannot hold the scale of a channel of small weights."""
    source = _saved(
        tmp_path,
        "(float[2,16] x) => (float[2,5000] y) { y = MatMul(x, w) }",
        {"w": np.random.default_rng(0).normal(0, 1e-7, (16, 5000)).astype(np.float32)},
    )
    (made,) = quantize_onnx(source, tmp_path / "made.onnx", RECIPES["int8"])
    assert not [key for key in stored_weights(made) if key[0] == "float16"]
    assert 0 < _error(_run(made), _run(source)) < 0.03
