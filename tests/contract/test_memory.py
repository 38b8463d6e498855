"""Recurrent graphs, whose files could keep a state: every file of every precision on every backend that runs it."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from backends.bundle import Bundle
from backends.registry import open_session, run_targets
from tests.shared import made_once
from toolkit.convert import slices
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle

_HIDDEN, _INPUTS = 6, 5
GRAPHS = {
    "lstm": """g (float[4,1,5] x) => (float[4,1,1,6] y, float[1,1,6] last) {
        y, last = LSTM<hidden_size = 6>(x, lw1, lr1, lb1) }""",
    "stacked": """g (float[4,1,5] x) => (float[4,1,1,6] y) <int64[1] axis = {1}> {
        first = LSTM<hidden_size = 6>(x, lw1, lr1, lb1)
        flat = Squeeze(first, axis)
        y = LSTM<hidden_size = 6, direction = "reverse">(flat, dw1, dr1, db1) }""",
    "bidirectional": """g (float[4,1,5] x) => (float[4,2,1,6] y) {
        y = LSTM<hidden_size = 6, direction = "bidirectional">(x, lw2, lr2, lb2) }""",
    "gru": """g (float[4,1,5] x) => (float[4,1,1,6] y, float[1,1,6] last) {
        y, last = GRU<hidden_size = 6, linear_before_reset = 1>(x, gw1, gr1, gb1) }""",
}
PRECISIONS = ("fp32", "fp16", "int8")


def _source(folder: Path, name: str) -> Path:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{GRAPHS[name]}')
    used = {name for node in proto.graph.node for name in node.input}
    for kind, gates, inputs in (("l", 4, _INPUTS), ("d", 4, _HIDDEN), ("g", 3, _INPUTS)):
        for directions in (1, 2):
            sizes = {"w": (gates * _HIDDEN, inputs), "r": (gates * _HIDDEN, _HIDDEN), "b": (2 * gates * _HIDDEN,)}
            for part, size in sizes.items():
                values = rng.uniform(-0.5, 0.5, (directions, *size)).astype(np.float32)
                if f"{kind}{part}{directions}" in used:
                    proto.graph.initializer.append(numpy_helper.from_array(values, f"{kind}{part}{directions}"))
    path = folder / "source.onnx"
    onnx.save(proto, path)
    return path


@cache
def _bundle(name: str) -> Bundle:
    def make(folder: Path) -> None:
        import_model(_source(folder, name), folder / name, {})
        convert_bundle(folder / name, conversion_rules, PRECISIONS)

    return Bundle.open(made_once(f"recurrent-{name}", make) / name)


@pytest.mark.parametrize("name", GRAPHS)
def test_no_file_of_a_recurrent_graph_keeps_memory_between_runs(name: str) -> None:
    bundle = _bundle(name)
    rng = np.random.default_rng(2)
    first, second = ({"x": rng.standard_normal((4, 1, _INPUTS)).astype(np.float32)} for _ in range(2))
    tried = set()
    for artifact in bundle.artifacts:
        for target in run_targets(artifact):
            with open_session(bundle, target.artifact, target.backend, 1) as session:
                before, other, again = (session.run(feed) for feed in (first, second, first))
            for output, value in before.items():
                where = f"{output} of {target.name}"
                assert again[output].tobytes() == value.tobytes(), f"{where}: another one after other inputs"
                assert other[output].tobytes() != value.tobytes(), where
            tried.add((artifact.format, artifact.precision))
    assert {("onnx", "fp32"), ("tflite", "fp32")} <= tried
    files = [file for role in compare_bundle(bundle).roles for file in role.files]
    assert files
    assert not [file.name for file in files for check in file.checks if check.number == "memory"]


def test_a_file_with_memory_is_refused_and_so_is_one_that_is_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one pass, the converter writes an operator whose state stays from one run to the next."""
    all_passes = slices.passes
    monkeypatch.setattr(
        slices, "passes", lambda stage: tuple(step for step in all_passes(stage) if step.name != "states_as_tensors")
    )
    import_model(_source(tmp_path, "lstm"), tmp_path / "lstm", {})
    conversion = convert_bundle(tmp_path / "lstm", conversion_rules, ("fp32",))
    (outcome,) = conversion.outcomes
    assert outcome.why is not None
    assert "model.fp32.tflite: " in outcome.why
    assert "the file keeps memory between runs" in outcome.why

    (made,) = convert_bundle(
        tmp_path / "lstm", lambda bundle: replace(conversion_rules(bundle), check=None), ("fp32",)
    ).outcomes
    assert made.made
    (file,) = [file for role in compare_bundle(Bundle.open(tmp_path / "lstm")).roles for file in role.files]
    assert not file.passed
    assert any("memory" in str(check) for check in file.failures)
