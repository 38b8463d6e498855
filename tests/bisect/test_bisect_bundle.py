"""Layer by layer is the whole file; memory has a bound; what is not matched is listed; bad input is one error."""

import json
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema

from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from backends.ort import OrtSession
from backends.registry import BACKENDS, BackendSpec, open_session
from backends.sandbox import SandboxProcess
from backends.tensor import Array
from graphs.onnx import file as onnx_file
from graphs.onnx.part import read_with_shapes
from graphs.passes import registry
from graphs.passes.registry import GraphPass
from graphs.tflite.graph import Graph, Node, Tensor, read_graph
from graphs.tflite.writer import write_graph
from tests.bisect.small import converted, replaced, small
from toolkit.bisect import bundle as bisecting
from toolkit.bisect import passes
from toolkit.bisect.bundle import bisect_bundle
from toolkit.bisect.candidates import OnnxCandidate, TfliteCandidate, TflitePart
from toolkit.bisect.layers import cut_layers, groups
from toolkit.bisect.measure import measure_layers
from toolkit.metrics.error import noise_to_signal
from toolkit.metrics.samples import Sample


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small(tmp_path)


@pytest.mark.parametrize("file", ["model.int8.tflite", "model.fp16.tflite", "model.int8.onnx"])
def test_what_the_end_inherits_is_the_error_of_the_whole_file(bundle: Bundle, file: str) -> None:
    (artifact,) = [artifact for artifact in bundle.artifacts if artifact.file == file]
    samples = bisecting._samples(bundle, artifact)
    outputs = []
    for one in (artifact, bundle.find("model", "onnx", "fp32")):
        with open_session(bundle, one, {"onnx": "ort", "tflite": "tflite"}[one.format], 1) as session:
            outputs.append([session.run(sample.feeds)["logits"] for sample in samples])
    whole = noise_to_signal(outputs[0], outputs[1], 0.0)
    assert bisect_bundle(bundle, file).layers[-1].inherited == pytest.approx(whole, rel=0.01)


def test_a_limit_of_memory_changes_no_number(bundle: Bundle) -> None:
    steps: list[str] = []
    reports = {
        limit: bisect_bundle(bundle, "model.int8.tflite", limit_bytes=limit, progress=steps.append)
        for limit in (1 << 30, 20_000, 1)
    }
    runs = [step for step in steps if step.startswith("running the reference")]
    assert len(runs) > 1 + len(reports[1].layers)
    assert reports[1].layers == reports[20_000].layers == reports[1 << 30].layers


def test_groups_keep_to_the_limit_and_leave_nothing_out(bundle: Bundle) -> None:
    layers = cut_layers(
        read_with_shapes(bundle.folder / "model.onnx"), OnnxCandidate(bundle.folder / "model.onnx")
    ).layers
    for limit in (1, 5_000, 20_000, 1 << 30):
        parts = list(groups(layers, limit))
        assert [layer for part in parts for layer in part] == list(layers)
        assert all(len(part) == 1 or sum(layer.bytes for layer in part) <= limit for part in parts)
        for one, following in zip(parts, parts[1:], strict=False):
            assert sum(layer.bytes for layer in (*one, following[0])) > limit


_LENGTH, _VALUES = 40, 1 << 20


def _bisect_chain(path: Path, limit_bytes: int, peak: "Queue[int]") -> None:
    """Bisect a chain of equally large results against itself, and say how much memory this process took at the most."""
    reference = read_with_shapes(path)
    cuts = cut_layers(reference, OnnxCandidate(path))
    feeds = {"x": np.ones(_VALUES, np.float32)}
    done, _ = measure_layers(reference, path.parent, cuts, [feeds], 1, lambda step: None, limit_bytes)
    assert len(done) == _LENGTH
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak.put(int(line.split()[1]) * 1024)


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([_VALUES]))
    nodes, value = [], x
    for i in range(_LENGTH):
        nodes.append(ir.node("Tanh", [value], name=f"node{i}"))
        value = nodes[-1].outputs[0]
        value.name, value.type, value.shape = f"t{i}", x.type, x.shape
    model = ir.Model(ir.Graph([x], [value], nodes=nodes, opset_imports={"": 20}, name="chain"), ir_version=10)
    ir.save(model, tmp_path / "chain.onnx")
    peaks = []
    processes = get_context("spawn")
    for limit in (1, 1 << 30):
        peak = processes.Queue()
        process = processes.Process(target=_bisect_chain, args=(tmp_path / "chain.onnx", limit, peak))
        process.start()
        peaks.append(peak.get(timeout=120))
        process.join()
    assert peaks[1] - peaks[0] > 0.8 * _LENGTH * _VALUES * 4, "with a limit, only few of the results were there at once"


def test_weights_are_named_by_the_file_and_never_loaded_with_the_graph(bundle: Bundle) -> None:
    graph = read_graph(bundle.folder / "model.int8.tflite")
    reference = read_with_shapes(bundle.folder / "model.onnx")
    artifact = bundle.find("model", "tflite", "int8")
    with SandboxProcess(bundle.folder / "log", 60) as trial:  # nothing runs
        cuts = cut_layers(reference, TfliteCandidate(bundle.folder / artifact.file, artifact, trial))
    payloads = [t.payload for t in graph.tensors() if t.payload is not None]
    assert payloads
    assert all(payload.file is not None and not payload.data for payload in payloads)
    assert len(cuts.layers) > 5


def test_a_tensor_of_another_shape_is_not_matched_and_listed(bundle: Bundle) -> None:
    artifact = bundle.find("model", "tflite", "fp32")
    path = bundle.folder / artifact.file
    graph = read_graph(path)
    (held,) = [one for one in graph.origins if one.name == "wide"]
    (other,) = [one for one in graph.origins if one.name == "mixed"]
    held.tensor = other.tensor
    write_graph(graph, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    report = bisect_bundle(replaced(bundle, artifact), artifact.file)
    (unmatched,) = [one for one in report.unmatched if one.tensor == "wide"]
    assert "has shape [1, 8, 8, 8], expected [64, 64]" in unmatched.why
    assert "wide" not in {layer.tensor for layer in report.layers}
    # It is inside of the layer behind it then.
    (active,) = [layer for layer in report.layers if layer.tensor == "active"]
    assert active.tflite_ops[-2:] == ("FULLY_CONNECTED", "TANH")


def test_a_layer_that_kills_its_runtime_is_one_error_that_names_it(tmp_path: Path) -> None:
    """LiteRT 2.3 aborts on a comparison of int8 tensors without a scale."""
    types, tensors = schema.TensorType, []
    for name, kind in (("x", types.INT8), ("y", types.INT8), ("above", types.BOOL)):
        table = schema.TensorT()
        table.name, table.shape, table.type = name.encode(), [2, 3], kind
        tensors.append(Tensor(table, None))
    x, y, above = tensors
    operator = schema.OperatorT()
    operator.builtinOptionsType = schema.BuiltinOptions.GreaterOptions
    operator.builtinOptions = schema.GreaterOptionsT()
    node = Node(operator, (schema.BuiltinOperator.GREATER, None, 1), [x, y], [above], [])
    values = np.zeros((2, 3), np.int8)
    with SandboxProcess(tmp_path / "log", 60) as trial:
        part = TflitePart(Graph(b"", {"x": x, "y": y}, {"above": above}, [node]), trial)
        with pytest.raises(InvalidArtifact, match=r"the layer that makes above \(GREATER\): .* was killed by SIGABRT"):
            part.run([{"x": values, "y": values}], 1)


def test_a_graph_whose_weights_lie_beside_it_is_matched_as_well(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx2tf writes such a graph anew, without its shapes, where it was."""
    monkeypatch.setattr(onnx_file, "_EMBED_LIMIT_BYTES", 0)
    monkeypatch.setattr(onnx_file, "_PAGE_BYTES", 1)
    (tmp_path / "beside").mkdir()
    beside = converted(tmp_path / "beside", ("fp32",))
    assert beside.find("model", "onnx", "fp32").external_files
    held = [[one.name for one in read_graph(b.folder / "model.fp32.tflite").origins] for b in (bundle, beside)]
    assert held[0] == held[1]
    report = bisect_bundle(beside, "model.fp32.tflite")
    assert {"stem", "mixed", "wide", "logits"} <= {layer.tensor for layer in report.layers}


def test_a_candidate_that_states_no_shapes_finds_its_weights_beside_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = bundle.find("model", "onnx", "int8")
    model = ir.load(bundle.folder / artifact.file)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    ir.save(model, bundle.folder / artifact.file, external_data="model.int8.onnx.data", size_threshold_bytes=200)
    paths = [bundle.folder / name for name in (artifact.file, "model.int8.onnx.data")]
    changed = replace(
        artifact,
        external_files=(paths[1].name,),
        sha256=sha256_of(*paths),
        bytes=sum(path.stat().st_size for path in paths),
    )
    monkeypatch.chdir(bundle.folder.parent)
    others = tuple(one for one in bundle.artifacts if one is not artifact)
    report = bisect_bundle(replace(bundle, folder=Path("small"), artifacts=(*others, changed)), artifact.file)
    assert {"stem", "mixed", "wide", "logits"} <= {layer.tensor for layer in report.layers}


def test_a_file_that_tells_nothing_is_one_layer_between_its_inputs_and_outputs(bundle: Bundle) -> None:
    artifact = bundle.find("model", "tflite", "fp32")
    path = bundle.folder / artifact.file
    graph = read_graph(path)
    graph.origins = []
    write_graph(graph, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    report = bisect_bundle(replaced(bundle, artifact), artifact.file)
    assert [layer.tensor for layer in report.layers] == ["logits"]
    assert {"stem", "mixed", "wide"} <= {one.tensor for one in report.unmatched}
    assert {one.why for one in report.unmatched} == {
        "the file does not say which tensors it holds: run `toolkit convert` again, and it will"
    }


def test_the_layer_is_shown_on_the_sample_that_shows_it_most(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros, large = ({"image": np.full((1, 3, 16, 16), value, np.float32)} for value in (0.0, 40.0))
    samples = [Sample(name, "synthetic", feeds, None) for name, feeds in (("zeros", zeros), ("large", large))]
    monkeypatch.setattr(bisecting, "_samples", lambda *which: samples)
    report = bisect_bundle(bundle, "model.int8.tflite", repro=bundle.folder / "repro")
    layer = json.loads((bundle.folder / "repro" / "layer.json").read_text())
    assert (report.samples, layer["sample"]) == (("zeros", "large"), "large")
    alone = {}
    for sample in samples:
        monkeypatch.setattr(bisecting, "_samples", lambda *which, sample=sample: [sample])
        layers = bisect_bundle(bundle, "model.int8.tflite").layers
        alone[sample.name] = next(one.introduced for one in layers if one.tensor == report.ranked()[0].tensor)
    assert alone["zeros"] < alone["large"]


def test_the_repro_is_written_whole_or_not_at_all(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundle.folder / "repro"

    def fail(*arguments: object) -> None:
        raise InvalidArtifact("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(bisecting, "write_repro", fail)
        with pytest.raises(InvalidArtifact, match="stopped"):
            bisect_bundle(bundle, "model.int8.tflite", repro=folder)
    assert not folder.exists()
    report = bisect_bundle(bundle, "model.int8.tflite", repro=folder)
    assert report.repro == str(folder)
    expected = {"candidate.tflite", "inputs.npz", "layer.json", "reference.onnx", "repro.py"}
    assert {path.name for path in folder.iterdir()} == expected
    bisect_bundle(bundle, "model.int8.onnx", repro=folder)  # an old one is replaced
    assert {path.name for path in folder.glob("candidate.*")} == {"candidate.onnx"}
    with pytest.raises(InvalidInput, match="holds something that is not a repro"):
        bisect_bundle(bundle, "model.int8.onnx", repro=bundle.folder)


def test_the_result_is_plain_json_in_running_order(bundle: Bundle) -> None:
    report = bisect_bundle(bundle, "model.int8.tflite")
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(document) == [
        "model", "weights", "candidate", "reference", "samples", "layers", "unmatched", "repro",
    ]  # fmt: skip
    names = ["tensor", "onnx_node", "onnx_op", "tflite_ops", "module", "shape", "inherited", "introduced"]
    assert all(list(layer) == names for layer in document["layers"])
    by_tensor = {layer["tensor"]: layer for layer in document["layers"]}
    assert list(by_tensor)[-1] == "logits"
    assert by_tensor["wide"]["tflite_ops"] == ["FULLY_CONNECTED"]
    assert by_tensor["wide"]["module"] == "head.wide"
    assert by_tensor["mixed"]["shape"] == [1, 8, 8, 8]


def _install(monkeypatch: pytest.MonkeyPatch, step: GraphPass) -> None:
    """Let one pass more be found, before those that are installed."""
    found = (step, *registry.passes("lowering"))
    export = registry.passes("export")
    for module in (registry, passes):
        monkeypatch.setattr(module, "passes", {"lowering": found, "export": export}.__getitem__)


def test_a_pass_is_compared_with_the_graph_before_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that halves a weight is found at the layer of that weight."""

    def halve(model: ir.Model) -> tuple[ir.Model, bool]:
        weight = model.graph.initializers["head.wide.weight"]
        assert weight.const_value is not None
        weight.const_value = ir.tensor(weight.const_value.numpy() / 2, name=weight.name)
        return model, True

    _install(monkeypatch, GraphPass("halve", "lowering", 0.0, (), halve))
    report = bisect_bundle(bundle, "model.onnx", around_pass="halve")
    first, second = report.ranked()[:2]
    assert (first.tensor, second.introduced) == ("wide", 0.0)
    assert first.introduced > 0.1
    assert (report.candidate, report.reference) == ("model.onnx after halve", "model.onnx before halve")


def test_a_name_that_a_pass_gives_to_another_tensor_is_no_match(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(model: ir.Model) -> tuple[ir.Model, bool]:
        (node,) = [node for node in model.graph if node.outputs[0].name.startswith("active")]
        (bent,) = [node for node in model.graph if node.outputs[0].name.startswith("squeezed")]
        bent.outputs[0].name, node.outputs[0].name = "active", "squeezed"
        return model, True

    _install(monkeypatch, GraphPass("rename", "lowering", 0.0, (), rename))
    report = bisect_bundle(bundle, "model.onnx", around_pass="rename")
    assert {"active", "squeezed"} <= {one.tensor for one in report.unmatched}
    assert report.ranked()[0].introduced == 0.0


def test_a_graph_of_before_takes_the_place_of_the_reference(bundle: Bundle, tmp_path: Path) -> None:
    before = tmp_path / "before.onnx"
    before.write_bytes((bundle.folder / "model.onnx").read_bytes())
    report = bisect_bundle(bundle, "model.onnx", before=before)
    assert report.reference == "before.onnx"
    assert report.ranked()[0].introduced == 0.0


def test_bad_input_is_one_error_that_says_what_there_is(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no candidate 'gone.tflite'; there is model.onnx, model.fp32.tflite"):
        bisect_bundle(bundle, "gone.tflite")
    with pytest.raises(InvalidInput, match=r"model.onnx is the reference itself: give a pass, a graph of before, or"):
        bisect_bundle(bundle, "model.onnx")
    with pytest.raises(InvalidInput, match=r"no pass 'gone'; there is compute_weights, "):
        bisect_bundle(bundle, "model.onnx", around_pass="gone")
    with pytest.raises(InvalidInput, match=r"pass reflect_by_slices changes nothing in model.onnx"):
        bisect_bundle(bundle, "model.onnx", around_pass="reflect_by_slices")
    with pytest.raises(NotAvailable, match=r"no torch weights of model to export again; give the graph itself"):
        bisect_bundle(bundle, "model.onnx", around_pass="simplify")
    with pytest.raises(InvalidInput, match=r"expected a float32 ONNX file for a pass, got model.int8.tflite"):
        bisect_bundle(bundle, "model.int8.tflite", around_pass="simplify")
    with pytest.raises(InvalidArtifact, match=r"gone.onnx: not a valid ONNX model"):
        bisect_bundle(bundle, "model.int8.onnx", before=tmp_path / "gone.onnx")
    path = bundle.folder / "model.int8.tflite"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvalidArtifact, match=r"expected \d+ bytes, got 1000"):
        bisect_bundle(bundle, path.name)


def test_the_reference_file_itself_is_bisected_on_another_backend(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slightly(OrtSession):
        """ONNX Runtime, but for one layer: what a Gemm gives is a hundredth larger."""

        def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            grown = 1.01 if "Gemm" in self.path.read_bytes().decode("latin-1") else 1.0
            return {name: np.asarray(value * np.float32(grown)) for name, value in super()._run(feeds).items()}

    spec = BackendSpec("slightly", "Slightly", ("onnx",), "onnxruntime", Slightly)
    monkeypatch.setitem(BACKENDS._added, "slightly", spec)
    with pytest.raises(InvalidInput, match="the reference itself: give a pass, a graph of before, or another backend"):
        bisect_bundle(tiny, "detector.onnx")
    report = bisect_bundle(tiny, "detector.onnx", backend="slightly")
    assert (report.reference, report.candidate) == ("detector.onnx", "detector.onnx on slightly")
    worst = max(report.layers, key=lambda layer: layer.introduced)
    assert worst.onnx_op == "Gemm"
    assert worst.introduced == pytest.approx(0.01, rel=0.1)
    assert all(layer.introduced < 1e-4 for layer in report.layers if layer.onnx_op != "Gemm")


def test_layers_are_bisected_in_a_precision_without_files(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rounding(OrtSession):
        """ONNX Runtime, whose results are rounded to 8 bits for an artifact in bf16."""

        def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            assert self.artifact.precision == "bf16"
            bits = {name: value.view(np.uint32) & 0xFFFF0000 for name, value in super()._run(feeds).items()}
            return {name: value.astype(np.uint32).view(np.float32) for name, value in bits.items()}

    spec = BackendSpec("rounding", "Rounding", ("onnx",), "onnxruntime", Rounding, casts=("bf16",))
    monkeypatch.setitem(BACKENDS._added, "rounding", spec)
    report = bisect_bundle(tiny, "detector.onnx", backend="rounding", precision="bf16")
    assert report.candidate == "detector.onnx on rounding in bf16"
    assert 1e-4 < max(layer.introduced for layer in report.layers) < 1e-2
    described = json.loads((Path(str(report.repro)) / "layer.json").read_text())
    assert (described["backend"], described["precision"]) == ("rounding", "bf16")
    with pytest.raises(NotAvailable, match="backend 'ort' does not run bf16"):
        bisect_bundle(tiny, "detector.onnx", precision="bf16")
    (tiny.folder / "int8.onnx").write_bytes((tiny.folder / "detector.onnx").read_bytes())
    int8 = replace(tiny.find("detector", "onnx", "fp32"), file="int8.onnx", precision="int8")
    with pytest.raises(InvalidInput, match=r"int8\.onnx: a file in int8, which does not run in bf16"):
        bisect_bundle(tiny.with_artifact(int8), "int8.onnx", backend="rounding", precision="bf16")


def test_another_backend_must_open_onnx_files(tiny: Bundle) -> None:
    with pytest.raises(InvalidInput, match=r"detector\.fp32\.tflite: layers run on another backend for ONNX files"):
        bisect_bundle(tiny, "detector.fp32.tflite", backend="ort")
