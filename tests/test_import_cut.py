"""A graph that ends in operators whose results have no fixed sizes is imported up to the tensors before them."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from backends.bundle import Bundle
from backends.registry import open_session
from graphs.onnx.source import is_there, read_again
from tests.foreign_graphs import toolkit
from toolkit.bench import throughput
from toolkit.bench.unprepared import write_unprepared

_DETECTOR = """<ir_version: 8, opset_import: ["": 17]> g (float[1,4,8,8] x) => (int64[n,3] chosen, float[1,8,16] raw)
<int64 k = {10}, float iou = {0.5}, float least = {0.1}, int64[3] flat = {1,8,-1}, int64[2] four = {4,4}> {
    h = Conv<strides = [2, 2]>(x, w)
    raw = Reshape(h, flat)
    boxes, logits = Split<axis = 1>(raw, four)
    corners = Transpose<perm = [0, 2, 1]>(boxes)
    scores = Sigmoid(logits)
    chosen = NonMaxSuppression(corners, scores, k, iou, least)
}"""


def _source(folder: Path, apart: bool = False) -> Path:
    model = onnx.parser.parse_model(_DETECTOR)
    weight = np.random.default_rng(0).normal(0, 0.3, (8, 4, 2, 2)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, folder / "source.onnx", save_as_external_data=apart, size_threshold=0, location="weights")
    return folder / "source.onnx"


@pytest.mark.parametrize("apart", [False, True])
def test_the_tensors_before_the_search_become_the_outputs(tmp_path: Path, apart: bool) -> None:
    source, folder = _source(tmp_path, apart), tmp_path / "bundle"
    refused = toolkit("import", source, "-o", folder)
    assert refused.exit_code == 2
    assert "(NonMaxSuppression) gives as many as it finds: give --cut-at corners,scores, which makes " in refused.stderr
    assert not folder.exists()
    shown = toolkit("import", source, "-o", folder, "--cut-at", "corners,scores")
    assert shown.exit_code == 0
    bundle = Bundle.open(folder)
    artifact = bundle.find("model", "onnx", "fp32")
    assert [(one.spec.name, one.spec.shape) for one in artifact.outputs] == [
        ("corners", (1, 16, 4)),
        ("scores", (1, 4, 16)),
    ]
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)}
    with open_session(bundle, artifact, "ort", threads=1) as session:
        got = session.run(feeds)
    (chosen,) = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(["chosen"], feeds)
    best = got["scores"][0, chosen[:, 1], chosen[:, 2]]
    assert len(chosen)
    assert (best > 0.1).all()
    assert is_there(bundle)  # the conversion reads the source again, cut in the same place
    assert [value.name for value in read_again(bundle).graph.outputs] == ["corners", "scores"]
    assert "NonMaxSuppression" not in {node.op_type for node in read_again(bundle).graph}


def test_the_benchmark_reads_the_source_up_to_the_cut(tmp_path: Path) -> None:
    source = _source(tmp_path)
    assert toolkit("import", source, "-o", tmp_path / "bundle", "--cut-at", "corners,scores").exit_code == 0
    bundle = Bundle.open(tmp_path / "bundle")
    (tmp_path / "peer").mkdir()
    unprepared = write_unprepared(bundle, "model", tmp_path / "peer", source)
    graph = onnx.load(tmp_path / "peer" / unprepared.file).graph
    assert [value.name for value in graph.output] == ["corners", "scores"]
    assert "NonMaxSuppression" not in {node.op_type for node in graph.node}
    again = throughput._imported(bundle, 1, tmp_path / "batch", source, lambda step: None)
    assert again.artifacts[0].outputs == bundle.artifacts[0].outputs


def test_an_output_may_stay_beside_a_cut_and_a_wrong_name_is_refused(tmp_path: Path) -> None:
    source = _source(tmp_path)
    shown = toolkit("import", source, "-o", tmp_path / "bundle", "--cut-at", "raw")
    assert shown.exit_code == 0
    assert [one.spec.name for one in Bundle.open(tmp_path / "bundle").artifacts[0].outputs] == ["raw"]
    wrong = toolkit("import", source, "-o", tmp_path / "bundle", "--cut-at", "corner")
    assert wrong.exit_code == 2
    assert "--cut-at corner: no node makes such a tensor; there is corners" in wrong.stderr


def test_a_graph_that_is_a_search_alone_is_told_so(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (int64[1,n] y) { y = NonZero(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "bundle")
    assert shown.exit_code == 2
    assert "it reads inputs of the graph, so that nothing is left to run: search in your program" in shown.stderr
