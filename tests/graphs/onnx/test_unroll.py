"""Loops of a fixed number of turns are read unrolled, and recurrent layers with the batch first with the time first."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from graphs.onnx.foreign import read_foreign
from graphs.passes.pipeline import run_once

_LOOP = """(float[1,8] x) => (float[1,8] y, float[4,1,8] all, float[4,1] sums) {
    twice = Constant<value = float {2}>()
    y, all, sums = Loop<body = step (int64 turn, bool before, float[1,8] h)
        => (bool after, float[1,8] next, float[1,8] shown, float[1] sum) <float half = {0.5}> {
        after = Identity(before)
        number = Cast<to = 1>(turn)
        product = MatMul(h, w)
        scaled = Mul(product, half)
        moved = Add(scaled, number)
        next = Tanh(moved)
        shown = Mul(moved, twice)
        sum = ReduceSum<keepdims = 0>(shown, last)
    }>(turns, yes, x)
}"""
_NESTED = """(float[1,8] x) => (float[1,8] y) {
    y = Loop<body = outer (int64 turn, bool before, float[1,8] h) => (bool after, float[1,8] next) {
        after = Constant<value = bool {1}>()
        first = MatMul(h, w)
        next = Loop<body = inner (int64 again, bool held, float[1,8] g) => (bool holds, float[1,8] more) {
            holds = Identity(held)
            both = Add(g, first)
            more = Tanh(both)
        }>(two, yes, h)
    }>(turns, , x)
}"""
_BRANCH = """(float[1,8] x) => (float[1,8] y) {
    y = Loop<body = step (int64 turn, bool before, float[1,8] h) => (bool after, float[1,8] next) {
        after = Identity(before)
        even = Mod(turn, two)
        is_even = Equal(even, none)
        double = Add(h, h)
        next = If(is_even)<
            then_branch = yes_branch () => (float[1,8] a) { a = MatMul(double, w) },
            else_branch = no_branch () => (float[1,8] b) { b = Neg(double) }
        >
    }>(turns, yes, x)
}"""


def _source(folder: Path, text: str, **constants: object) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {text}')
    weight = np.random.default_rng(0).normal(0, 0.3, (8, 8)).astype(np.float32)
    given = {"w": weight, "turns": np.array(4), "two": np.array(2), "none": np.array(0), "yes": np.array(True)}
    given |= {"last": np.array([1])} | constants
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(values), name) for name, values in given.items() if name in text
    )
    onnx.save(model, folder / "source.onnx")
    return folder / "source.onnx"


@pytest.mark.parametrize("text", [_LOOP, _NESTED, _BRANCH])
def test_a_loop_of_a_fixed_number_of_turns_is_unrolled(tmp_path: Path, text: str) -> None:
    source = _source(tmp_path, text)
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)}
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, feeds), strict=True))
    model = read_foreign(source, {})
    assert not {"Loop", "If"} & {node.op_type for node in model.graph.all_nodes()}
    assert sum(node.op_type == "MatMul" for node in model.graph) == (2 if text == _BRANCH else 4)
    got = run_once(model, feeds, "unrolled")
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, atol=1e-6)


@pytest.mark.parametrize(
    ("turns", "yes"), [(0, True), (4, False), (10_000, True)], ids=["no turn", "ended at once", "too many nodes"]
)
def test_another_loop_stays(tmp_path: Path, turns: int, yes: bool) -> None:
    model = read_foreign(_source(tmp_path, _LOOP, turns=np.array(turns), yes=np.array(yes)), {})
    assert [node.op_type for node in model.graph if node.op_type == "Loop"] == ["Loop"]


def test_a_loop_that_a_value_ends_stays(tmp_path: Path) -> None:
    text = _LOOP.replace("after = Identity(before)", "size = ReduceMax<keepdims = 0>(h) after = Less(size, twice)")
    model = read_foreign(_source(tmp_path, text), {})
    assert [node.op_type for node in model.graph if node.op_type == "Loop"] == ["Loop"]


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_gets_the_time_first(tmp_path: Path, kind: str, gates: int, direction: str) -> None:
    """onnx's reference implementation has one direction alone; of two, the last states are held to all states."""
    ways, hidden = (2 if direction == "bidirectional" else 1), 7
    random = np.random.default_rng(0)
    sizes = {"w": (ways, gates * hidden, 5), "r": (ways, gates * hidden, hidden), "b": (ways, 2 * gates * hidden)}
    constants = {name: random.normal(0, 0.3, size).astype(np.float32) for name, size in sizes.items()}
    last = f"float[2,{ways},{hidden}]"
    text = f"""(float[2,6,5] x, {last} h0) => (float[2,6,{ways},{hidden}] y, {last} h)
    {{ y, h = {kind}<hidden_size = {hidden}, direction = "{direction}", layout = 1>(x, w, r, b, , h0) }}"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in constants.items())
    onnx.save(model, tmp_path / "source.onnx")
    feeds = {"x": random.normal(size=(2, 6, 5)).astype(np.float32)}
    feeds["h0"] = random.normal(size=(2, ways, hidden)).astype(np.float32)
    got = run_once(read_foreign(tmp_path / "source.onnx", {}), feeds, "time first")
    assert got["y"].shape == (2, 6, ways, hidden)
    assert got["h"].shape == (2, ways, hidden)
    np.testing.assert_allclose(got["y"][:, -1, 0], got["h"][:, 0], atol=1e-6)
    if direction == "forward":
        expected = ReferenceEvaluator(model).run(None, feeds)
        np.testing.assert_allclose(got["y"], expected[0], atol=1e-5)
        np.testing.assert_allclose(got["h"], expected[1], atol=1e-5)
    else:
        np.testing.assert_allclose(got["y"][:, 0, 1], got["h"][:, 1], atol=1e-6)
