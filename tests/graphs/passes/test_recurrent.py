"""LSTMs get initial states that are computed, without which the TFLite file would keep them between runs."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graphs.passes.pipeline import prepare, run_once
from graphs.passes.recurrent import state_initial, states_as_tensors

_STATES = {
    "none": ("", ""),
    "constant": ("", ", , start, start"),
    "inputs": (", float[D,2,6] h, float[D,2,6] c", ", , h, c"),
}
_OUTPUTS = {
    "every output": ("float[4,D,2,6] y, float[D,2,6] last_h, float[D,2,6] last_c", "y, last_h, last_c"),
    "the last state": ("float[D,2,6] last_h", ", last_h"),
}


def _model(direction: str, states: str, outputs: str, attributes: str = "") -> ir.Model:
    directions = 2 if direction == "bidirectional" else 1
    (given, inputs), (made, names) = _STATES[states], _OUTPUTS[outputs]
    text = f"""<ir_version: 10, opset_import: ["": 20]> g (float[4,2,5] x{given}) => ({made}) {{
        {names} = LSTM<hidden_size = 6, direction = "{direction}"{attributes}>(x, w, r, b{inputs}) }}"""
    proto = onnx.parser.parse_model(text.replace("[D,", f"[{directions},").replace(",D,", f",{directions},"))
    rng = np.random.default_rng(0)
    for name, sizes in {"w": (24, 5), "r": (24, 6), "b": (48,), "start": (2, 6)}.items():
        if name != "start" or states == "constant":
            array = rng.uniform(-0.5, 0.5, (directions, *sizes)).astype(np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def _feeds(model: ir.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(np.float32)
        for value in model.graph.inputs
        if value.shape is not None
    }


@pytest.mark.parametrize("outputs", _OUTPUTS)
@pytest.mark.parametrize("states", _STATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_lstm_of_any_direction_and_states_becomes_forward_ones_with_computed_states(
    direction: str, states: str, outputs: str
) -> None:
    model = _model(direction, states, outputs)
    names = [value.name for value in model.graph.outputs]
    steps = (state_initial, states_as_tensors)
    model, changed = prepare(model, _feeds(model), steps)  # compares with the graph before
    assert ("states_as_tensors" in changed) == ((direction, states) != ("forward", "inputs"))
    layers = [node for node in model.graph if node.op_type == "LSTM"]
    assert len(layers) == (2 if direction == "bidirectional" else 1)
    for node in layers:
        assert node.attributes.get_string("direction") == "forward"
        for state in node.inputs[5:7]:
            assert state is not None
            assert not state.is_initializer()
    assert [value.name for value in model.graph.outputs] == names
    assert prepare(model, _feeds(model), steps)[1] == ()


@pytest.mark.parametrize("attributes", [", clip = 1.0", ', activations = ["Sigmoid", "Tanh", "Relu"]'])
def test_an_lstm_that_computes_otherwise_stays(attributes: str) -> None:
    model = _model("forward", "constant", "every output", attributes)
    assert not states_as_tensors(model)[1]


@pytest.mark.parametrize(
    ("lengths", "peephole", "kept"), [((4, 4), 0.0, False), ((4, 3), 0.0, True), ((4, 4), 0.1, True)]
)
def test_lengths_of_whole_sequences_and_zero_peepholes_are_left_out(
    lengths: tuple[int, ...], peephole: float, kept: bool
) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 20]>
    g (float[4,2,5] x) => (float[4,1,2,6] y) { y = LSTM<hidden_size = 6>(x, w, r, b, lengths, , , p) }""")
    rng = np.random.default_rng(0)
    for name, sizes in {"w": (24, 5), "r": (24, 6), "b": (48,)}.items():
        array = rng.uniform(-0.5, 0.5, (1, *sizes)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(lengths, np.int32), "lengths"))
    proto.graph.initializer.append(numpy_helper.from_array(np.full((1, 18), peephole, np.float32), "p"))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    feeds = _feeds(model)
    expected = run_once(model, feeds, "before")["y"]
    model, _ = prepare(model, {}, (state_initial,), stepwise=False)
    (node,) = (node for node in model.graph if node.op_type == "LSTM")
    given = [*node.inputs, None, None][:8]
    assert (given[4] is not None or given[7] is not None) == kept
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], expected, atol=1e-6)
