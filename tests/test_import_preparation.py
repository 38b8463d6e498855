"""Preparation never costs a model: passes that break a graph are left out, and recurrent layers stay what they are."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.registry import open_session
from graphs.onnx.rewriting import replace_node
from graphs.passes.registry import GraphPass, Rewrite
from tests import deadly
from tests.foreign_graphs import square_root, toolkit
from toolkit import import_check
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules

_TRUE_RUN = import_check.run


def _run_and_add_one(path: Path, feeds: import_check.Feeds) -> import_check.Outputs:
    """The outputs, and of the prepared graph one more than it gives. At module level: it also runs in a child."""
    outputs = _TRUE_RUN(path, feeds)
    return [{name: value + (path.name == "model.onnx") for name, value in one.items()} for one in outputs]


def test_what_the_source_computes_is_not_taken_on_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = square_root(tmp_path)
    monkeypatch.setattr("toolkit.import_model.run", _run_and_add_one)
    with pytest.raises(InvalidArtifact, match="written again it is not the same: 'y' moved by"):
        import_model(source, tmp_path / "root", {})
    assert [path.name for path in tmp_path.iterdir()] == ["source.onnx"]


def _doubled(model: ir.Model) -> tuple[ir.Model, bool]:
    node = model.graph.node(0)
    one = ir.node(node.op_type, node.inputs, outputs=[ir.Value(name="one")])
    replace_node(model.graph, node, [one, ir.node("Add", [one.outputs[0], one.outputs[0]])])
    return model, True


def _raising(model: ir.Model) -> tuple[ir.Model, bool]:
    model.graph.remove(model.graph.node(0))
    raise KeyError("half done")


def _named(model: ir.Model) -> tuple[ir.Model, bool]:
    model.graph.node(0).name = "last"
    return model, True


@pytest.mark.parametrize(
    ("broken", "said"), [(_doubled, "'y' moved by"), (_raising, "half done")], ids=["other values", "an error"]
)
def test_a_pass_that_breaks_a_graph_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Rewrite, said: str
) -> None:
    steps = (GraphPass("broken", "export", 0.0, (), broken), GraphPass("named", "export", 0.0, (), _named))
    monkeypatch.setattr("graphs.passes.simplify.passes", lambda stage: steps)
    notes: list[str] = []
    bundle = import_model(square_root(tmp_path), tmp_path / "root", {}, note=notes.append)
    (node,) = onnx.load(bundle.folder / "model.onnx").graph.node
    assert (node.op_type, node.name) == ("Sqrt", "last")
    (line,) = notes
    assert "source.onnx: prepared without the pass broken: " in line
    assert said in line


@pytest.mark.parametrize(
    ("onnxsim", "said"),
    [
        (deadly.dying_onnxsim, "was killed by SIGABRT"),
        (deadly.wrong_onnxsim, "'y' "),
        (deadly.refusing_onnxsim, "topologically sorted"),
    ],
    ids=["crashes", "changes the result", "refuses"],
)
def test_onnxsim_is_left_out_where_it_cannot_help(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    onnxsim: Callable[[onnx.ModelProto], onnx.ModelProto],
    said: str,
) -> None:
    monkeypatch.setattr("graphs.passes.simplify.run_onnxsim", onnxsim)
    shown = toolkit("import", square_root(tmp_path), "-o", tmp_path / "root")
    assert shown.exit_code == 0, shown.stderr
    (line,) = shown.stderr.splitlines()
    assert "prepared without the pass simplify" in line
    assert said in line
    assert str(tmp_path / "root") not in line
    assert Bundle.open(tmp_path / "root").find("model", "onnx", "fp32").file == "model.onnx"


def _recurrent(folder: Path, text: str) -> Path:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    gates = {"l": 4, "g": 3}
    for kind, count in gates.items():
        for directions in (1, 2):
            sizes = {"w": (count * 6, 5), "r": (count * 6, 6), "b": (2 * count * 6,)}
            proto.graph.initializer.extend(
                numpy_helper.from_array(
                    rng.uniform(-0.5, 0.5, (directions, *size)).astype(np.float32), f"{kind}{name}{directions}"
                )
                for name, size in sizes.items()
            )
    used = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    path = folder / "source.onnx"
    onnx.save(proto, path)
    return path


_RECURRENT = {
    "both directions": """g (float[4,1,5] x) => (float[4,2,1,6] y) <float[2,1,6] zero = {0,0,0,0,0,0,0,0,0,0,0,0}> {
        y = LSTM<hidden_size = 6, direction = "bidirectional">(x, lw2, lr2, lb2, , zero, zero) }""",
    "last hidden state": """g (float[4,1,5] x) => (float[1,1,6] y) {
        all, last = GRU<hidden_size = 6, linear_before_reset = 1>(x, gw1, gr1, gb1)
        y = Exp(last) }""",
    "no name for what is not read": """g (float[4,1,5] x) => (float[1,1,6] y) {
        , last = GRU<hidden_size = 6>(x, gw1, gr1, gb1)
        y = Exp(last) }""",
    "states as inputs and outputs": """g (float[4,1,5] x, float[1,1,6] h, float[1,1,6] c)
        => (float[4,1,1,6] y, float[1,1,6] hn, float[1,1,6] cn) {
        y, hn, cn = LSTM<hidden_size = 6>(x, lw1, lr1, lb1, , h, c) }""",
}


@pytest.mark.parametrize("text", _RECURRENT.values(), ids=_RECURRENT)
def test_a_recurrent_layer_keeps_its_initial_states_and_the_name_of_its_first_output(tmp_path: Path, text: str) -> None:
    shown = toolkit("import", _recurrent(tmp_path, text), "-o", tmp_path / "out")
    assert (shown.exit_code, shown.stderr) == (0, "")
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    (node,) = [node for node in graph.node if node.op_type in ("LSTM", "GRU")]
    states = 2 if node.op_type == "LSTM" else 1
    assert all(node.input[5 : 5 + states])
    assert len(node.input) == 5 + states
    assert node.output[0]
    given = {value.name for value in graph.input}
    stated = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for name in node.input[5:]:
        assert name in given or not stated[name].any()


def test_a_tflite_file_of_a_recurrent_layer_keeps_nothing_between_runs(tmp_path: Path) -> None:
    source = _recurrent(tmp_path, _RECURRENT["both directions"])
    import_model(source, tmp_path / "out", {})
    bundle = convert_bundle(tmp_path / "out", conversion_rules, ("fp32",), strict=True).bundle
    rng = np.random.default_rng(2)
    first, second = ({"x": rng.standard_normal((4, 1, 5)).astype(np.float32)} for _ in range(2))
    expected = [onnxruntime.InferenceSession(source).run(None, feed)[0] for feed in (first, second, first)]
    with open_session(bundle, bundle.find("model", "tflite", "fp32"), "tflite", threads=1) as session:
        got = [session.run(feed)["y"] for feed in (first, second, first)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


class _Recognizer(torch.nn.Module):
    """A line of text as a CRNN reads it: convolutions, two bidirectional LSTMs, a class for each column."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, (16, 1)))
        self.read = torch.nn.LSTM(8, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(24, 20)

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        states, _ = self.read(self.body(line).squeeze(2).transpose(1, 2))
        logits: torch.Tensor = self.head(states)
        return logits


class _Last(torch.nn.Module):
    """The last hidden state of a GRU, or of an LSTM with its states as inputs and outputs."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.cell = getattr(torch.nn, cell)(8, 12, batch_first=True)
        self.head = torch.nn.Linear(12, 5)

    def forward(self, x: torch.Tensor, *states: torch.Tensor) -> Any:
        _, last = self.cell(x, states or None)
        hidden = last[0] if isinstance(last, tuple) else last
        logits = self.head(hidden[-1])
        return (logits, *last) if states else logits


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (_Recognizer(), (torch.randn(1, 1, 32, 40),)),
        (_Last("GRU"), (torch.randn(1, 7, 8),)),
        (_Last("LSTM"), (torch.randn(1, 7, 8),)),
        (_Last("LSTM"), (torch.randn(1, 7, 8), torch.randn(1, 1, 12), torch.randn(1, 1, 12))),
    ],
    ids=["CRNN", "GRU", "LSTM", "LSTM with states"],
)
def test_a_recurrent_network_is_imported(
    tmp_path: Path, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
) -> None:
    source = tmp_path / "source.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), inputs, source, dynamo=True, verbose=False)
    bundle = import_model(source, tmp_path / "made", {})
    artifact = bundle.find("model", "onnx", "fp32")
    feeds = {b.spec.name: value.numpy() for b, value in zip(artifact.inputs, inputs, strict=True)}
    with torch.inference_mode():
        results = module(*inputs)
    with open_session(bundle, artifact, "ort", threads=1) as session:
        first, again = (list(session.run(feeds).values()) for _ in range(2))
    for got, once, want in zip(first, again, results if isinstance(results, tuple) else (results,), strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)
        np.testing.assert_array_equal(once, got)
