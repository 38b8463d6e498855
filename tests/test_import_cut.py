"""A graph that ends in a search has as many results as it finds: it is kept whole, filled up to the largest number for
TFLite, or imported up to the tensors before the search."""

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
from toolkit.convert.pipeline import convert_bundle
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle

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


def test_a_search_is_kept_and_its_results_are_filled_up_for_tflite(tmp_path: Path) -> None:
    source, folder = _source(tmp_path), tmp_path / "bundle"
    shown = toolkit("import", source, "-o", folder)
    assert shown.exit_code == 0
    assert "TFLite" not in shown.stderr
    artifact = Bundle.open(folder).find("model", "onnx", "fp32")
    assert artifact.axes == {"chosen": ("*", None)}
    assert artifact.outputs[0].spec.shape == (40, 3)  # 4 classes, 10 boxes each
    convert_bundle(folder, conversion_rules, ["fp32", "int8"])
    bundle = Bundle.open(folder)
    report = compare_bundle(bundle)
    assert report.passed
    assert [file.artifact.file for file in report.roles[0].files] == [
        "model.fp32.tflite",
        "model.int8.tflite",
        "model.int8.onnx",
    ]
    exact = report.roles[0].files[0].total
    assert exact is not None
    assert exact.outputs["chosen"].changed == 0
    assert 0 < exact.outputs["chosen"].values < 38 * 40 * 3  # of what was found, not of the rows that fill it up
    noise = 3 * np.random.default_rng(1).normal(size=(1, 4, 8, 8))
    weight = onnx.numpy_helper.to_array(onnx.load(source).graph.initializer[-1])
    patch = np.linalg.pinv(weight[4:].reshape(4, 16)) @ np.full(4, -9.0)  # a logit of -9 for each class
    nothing = np.tile(patch.reshape(1, 4, 2, 2), (1, 1, 4, 4))
    for x, is_found in ((noise, True), (nothing, False)):
        feeds = {"x": x.astype(np.float32)}
        with open_session(bundle, artifact, "ort", threads=1) as session:
            expected = session.run(feeds)["chosen"]
        with open_session(bundle, bundle.find("model", "tflite", "fp32"), "tflite", threads=1) as session:
            filled = session.run(feeds)["chosen"]
        (chosen,) = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(["chosen"], feeds)
        np.testing.assert_array_equal(expected, chosen)
        assert filled.shape == (40, 3)
        assert (len(chosen) > 0) == is_found
        assert (filled[len(chosen) :] == -1).all()
        assert set(map(tuple, filled[: len(chosen)].tolist())) == set(map(tuple, chosen.tolist()))


def test_results_of_no_largest_number_are_left_to_onnx_runtime(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1,4,8,8] x) => (int64[4,n] y) {
        h = Relu(x) [seen] y = NonZero(h)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    folder = tmp_path / "bundle"
    shown = toolkit("import", tmp_path / "source.onnx", "-o", folder)
    assert shown.exit_code == 0
    said = (
        "no TFLite file can be made: output 'y' has no largest size, and a TFLite file has fixed sizes; 'seen' "
        "(NonZero) gives as many as it finds: import it with --cut-at h, which makes its inputs the outputs, and "
        "search in your program; or run it on ONNX Runtime (`toolkit convert --runtime ort` makes its files)"
    )
    assert f"model.onnx: {said}" in shown.stderr
    rows = convert_bundle(folder, conversion_rules, ["fp32"]).outcomes
    assert [(row.runtime, row.made) for row in rows if not row.made] == [("tflite", False)]
    assert said in str(rows[-1].why)
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    with open_session(Bundle.open(folder), Bundle.open(folder).artifacts[0], "ort", threads=1) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.nonzero(x > 0))
        assert session.run({"x": -np.abs(x)})["y"].shape == (4, 0)


def test_a_graph_that_is_a_search_alone_is_told_so(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (int64[1,n] y) { y = NonZero(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "bundle")
    assert shown.exit_code == 0
    assert "it reads inputs of the graph, so that nothing is left to run: search in your program" in shown.stderr
