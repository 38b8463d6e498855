"""A graph that the usual way lowers wrongly or not at all is lowered with less preparation, or by the other route."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from backends.bundle import Bundle
from graphs.passes.registry import GraphPass, passes
from toolkit.cli.convert_table import exit_code, print_conversion
from toolkit.convert import healing, slices
from toolkit.convert.converter import ConversionFailed, ConverterStopped, WorkerResult, run_worker
from toolkit.convert.outcome import Conversion
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle

_DENSE = "(float[4,64] x) => (float[4,64] y) { h = MatMul(x, w) y = Relu(h) }"
Run = Callable[..., WorkerResult]


def _imported(folder: Path, text: str = _DENSE) -> Bundle:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {text}')
    weight = np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, folder / "source.onnx")
    return import_model(folder / "source.onnx", folder / "foreign", {})


def _tflite(bundle: Bundle, **options: Any) -> Conversion:
    return convert_bundle(bundle.folder, conversion_rules, ("fp32", "int8"), runtimes=("tflite",), **options)


def _spoiling(name: str, change: Callable[[ir.Node], None]) -> GraphPass:
    """Return a pass of the lowering that changes every Relu."""

    def run(model: ir.Model) -> tuple[ir.Model, bool]:
        found = [node for node in model.graph if node.op_type == "Relu"]
        for node in found:
            change(node)
        return model, bool(found)

    return GraphPass(name, "lowering", 0.0, (), run)


def _with_pass(monkeypatch: pytest.MonkeyPatch, step: GraphPass) -> None:
    def more(stage: Any) -> tuple[GraphPass, ...]:
        return (*passes(stage), step) if stage == "lowering" else passes(stage)

    monkeypatch.setattr(slices, "passes", more)
    monkeypatch.setattr(healing, "passes", more)


def _failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[dict[str, Any]], bool], error: Exception) -> list[str]:
    """Let the converter fail on some requests. Returns the tasks of all requests, as they come."""
    tasks: list[str] = []

    def run(request: dict[str, Any], *arguments: Any) -> WorkerResult:
        tasks.append(request["task"])
        if fails(request):
            raise error
        return run_worker(request, *arguments)

    monkeypatch.setattr("toolkit.convert.job.run_worker", run)
    return tasks


def _direct(request: dict[str, Any]) -> bool:
    return request["task"] == "lower"


def _rename(node: ir.Node) -> None:
    node.name = "spoiled"


def _to_tanh(node: ir.Node) -> None:
    node.op_type = "Tanh"


def _has_spoiled(request: dict[str, Any]) -> bool:
    models = request.get("models", {}).values() if request["task"] == "lower" else ()
    return any(node.name == "spoiled" for path in models for node in onnx.load(path).graph.node)


def test_a_pass_that_makes_the_file_wrong_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    _with_pass(monkeypatch, _spoiling("spoil", _to_tanh))
    bundle = _imported(tmp_path)
    conversion = _tflite(bundle)
    assert [(one.file, one.why, one.way) for one in conversion.outcomes] == [
        ("model.fp32.tflite", None, "without the pass spoil"),
        ("model.int8.tflite", None, "without the pass spoil"),
    ]
    assert exit_code(conversion) == 0
    assert compare_bundle(Bundle.open(bundle.folder)).passed
    print_conversion(conversion, ())
    shown = capsys.readouterr()
    assert "made without the pass spoil" in " ".join(shown.out.split())
    assert (
        "note: model.onnx: lowered without the pass spoil, because otherwise no TFLite file can be made: the file "
        in (shown.err)
    )
    assert not [path for path in bundle.folder.iterdir() if path.is_dir()]


def test_a_graph_that_fails_in_the_converter_is_tried_without_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_pass(monkeypatch, _spoiling("spoil", _rename))
    tasks = _failing(monkeypatch, _has_spoiled, ConversionFailed("the converter failed"))
    conversion = _tflite(_imported(tmp_path))
    assert {one.way for one in conversion.outcomes} == {"without the pass spoil"}
    assert tasks.count("lower") == 2
    assert conversion.notes == ("model.onnx: lowered without the pass spoil, because otherwise the converter failed",)


def test_the_files_of_the_usual_way_are_the_same_as_those_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _imported(tmp_path)
    usual = _tflite(bundle)
    assert {one.way for one in usual.outcomes} == {None}
    before = {one.file: (bundle.folder / one.file).read_bytes() for one in usual.outcomes}
    _with_pass(monkeypatch, _spoiling("spoil", _to_tanh))
    again = _tflite(bundle)
    assert {one.file: (bundle.folder / one.file).read_bytes() for one in again.outcomes} == before


def test_a_pass_of_the_import_that_is_to_blame_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import may have merged nodes into one that no pass of the lowering takes apart."""
    bundle = _imported(tmp_path)

    def has_gemm(request: dict[str, Any]) -> bool:
        models = request.get("models", {}).values() if request["task"] == "lower" else ()
        return any(node.op_type == "Gemm" for path in models for node in onnx.load(path).graph.node)

    _failing(monkeypatch, has_gemm, ConversionFailed("the converter failed"))
    conversion = _tflite(bundle)
    assert {one.way for one in conversion.outcomes} == {"without the pass matmul_to_gemm"}
    (tmp_path / "source.onnx").write_bytes(b"something else")  # then only the prepared graph is there
    assert {one.way for one in _tflite(bundle).outcomes} == {"by TensorFlow's converter (--route tf)"}


def test_the_other_route_makes_every_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = _imported(tmp_path)
    _failing(monkeypatch, _direct, ConversionFailed("the converter failed"))
    conversion = _tflite(bundle)
    assert [(one.file, one.way) for one in conversion.outcomes] == [
        (f"model.{precision}.tf.tflite", "by TensorFlow's converter (--route tf)") for precision in ("fp32", "int8")
    ]
    opened = Bundle.open(bundle.folder)
    assert opened.find("model", "tflite", "int8").route == "tf"
    assert "tensorflow" in opened.find("model", "tflite", "fp32").tools
    assert compare_bundle(opened).passed


def test_a_graph_that_fails_in_every_way_says_which_were_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = _failing(
        monkeypatch, lambda request: request["task"] in ("lower", "lower-tf"), ConversionFailed("the converter failed")
    )
    conversion = _tflite(_imported(tmp_path))
    assert {one.why for one in conversion.failed} == {
        "the converter failed; it fails as well without the passes of the import, as imported, by TensorFlow's "
        "converter (--route tf), as imported, by TensorFlow's converter"
    }
    assert tasks == ["lower", "lower", "lower", "lower-tf", "lower-tf", "lower"]  # the last one in parts
    assert conversion.notes == ("the operators to blame were not found: the converter failed",)
    assert not [path for path in (tmp_path / "foreign").iterdir() if path.is_dir()]


_WRITTEN_OUT = """(float[1,4,12,12] x, float[1,5,6,2] g) => (
    float[1,4,12,12] flipped, float[1,4,5,12] backward, float[1,4,12,12] gelu, float[1,4,144] prelu,
    float[1,4,6,8] smaller, float[1,4,5,6] reflected, float[1,4,4] product,
    float[1,4,5,6] cubic
) {
    h = Conv<pads = [1, 1, 1, 1]>(x, w)
    turned = Slice(h, last, least, rows, last)
    flipped = Slice(turned, last, least, columns, last)
    backward = Slice(h, ten, one, rows, minus_two)
    gelu = Gelu<approximate = "tanh">(h)
    flat = Reshape(h, sizes)
    prelu = PRelu(flat, slope)
    smaller = Resize<mode = "linear", antialias = 1>(h, , , small)
    reflected = GridSample<padding_mode = "reflection">(h, g)
    product = Einsum<equation = "...ak,...bk">(flat, flat)
    cubic = GridSample<mode = "cubic">(h, g)
}"""


def test_operators_that_the_lowering_lacks_need_no_other_way(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {_WRITTEN_OUT}')
    random = np.random.default_rng(0)
    numbers = {"last": -1, "least": -(2**63) + 1, "rows": 2, "columns": 3, "ten": 10, "one": 0, "minus_two": -2}
    constants = {name: np.array([number], np.int64) for name, number in numbers.items()}
    constants |= {"sizes": np.array([1, 4, 144], np.int64), "small": np.array([1, 4, 6, 8], np.int64)}
    floats = {"w": random.normal(0, 0.3, (4, 4, 3, 3)), "slope": random.normal(0, 1, (4, 1))}
    constants |= {name: values.astype(np.float32) for name, values in floats.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in constants.items())
    onnx.save(model, tmp_path / "source.onnx")
    bundle = import_model(tmp_path / "source.onnx", tmp_path / "foreign", {})
    assert [(one.precision, one.why, one.way) for one in _tflite(bundle).outcomes] == [
        ("fp32", None, None),
        ("int8", None, None),
    ]


_LAYERS = """(float[1,3,12,12] x) => (float[1,4,12,12] y) {
    first = Conv<pads = [1, 1, 1, 1]>(x, w)
    second = Relu(first)
    [bend] third = Tanh(second)
    fourth = Conv<pads = [1, 1, 1, 1]>(third, v)
    y = Add(fourth, first)
}"""


def _layers(folder: Path, text: str = _LAYERS) -> Bundle:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> g {text}')
    random = np.random.default_rng(0)
    for name, size in {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3)}.items():
        values = random.normal(0, 0.3, size).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, folder / "source.onnx")
    return import_model(folder / "source.onnx", folder / "foreign", {})


def _without_tanh(monkeypatch: pytest.MonkeyPatch, most_nodes: int) -> None:
    """Let onnx2tf lower no Tanh, and TensorFlow's converter no graph of more than `most_nodes`."""

    def nodes(path: str) -> list[str]:
        return [node.op_type for node in onnx.load(path).graph.node]

    def run(request: dict[str, Any], *arguments: Any) -> WorkerResult:
        if request["task"] == "lower-tf" and len(nodes(request["model"])) > most_nodes:
            raise ConversionFailed("the other converter failed")
        if request["task"] != "lower":
            return run_worker(request, *arguments)
        refused = {name: "no Tanh" for name, path in request["models"].items() if "Tanh" in nodes(path)}
        if refused and not request.get("each"):
            raise ConversionFailed("the converter failed")
        models = {name: path for name, path in request["models"].items() if name not in refused}
        if not models:
            return WorkerResult({}, {}, refused)
        result = run_worker(request | {"models": models}, *arguments)
        return WorkerResult(result.files, result.tools, result.failed | refused)

    monkeypatch.setattr("toolkit.convert.job.run_worker", run)


def test_one_operator_alone_takes_the_other_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = _layers(tmp_path)
    _without_tanh(monkeypatch, most_nodes=1)
    conversion = _tflite(bundle)
    assert [(one.file, one.why, one.way) for one in conversion.outcomes] == [
        (f"model.{precision}.tflite", None, "with 'bend' (Tanh) by TensorFlow's converter")
        for precision in ("fp32", "int8")
    ]
    assert compare_bundle(Bundle.open(bundle.folder)).passed
    assert not [path for path in bundle.folder.iterdir() if path.is_dir()]


def test_an_operator_of_neither_route_is_named_and_written_with_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _layers(tmp_path)
    _without_tanh(monkeypatch, most_nodes=0)
    why = str(_tflite(bundle).failed[0].why)
    repro = tmp_path / "foreign-model.fp32.tflite-repro"
    assert "; neither route lowers 'bend' (Tanh): no Tanh; `python " in why
    assert f"{repro / 'repro.py'}` runs 'bend' (Tanh) alone" in why
    assert f"`toolkit convert {bundle.folder} --runtime ort` makes the files for ONNX Runtime" in why
    assert [node.op_type for node in onnx.load(repro / "reference.onnx").graph.node] == ["Tanh"]
    shown = subprocess.run([sys.executable, repro / "repro.py"], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[0] == "'bend' (Tanh): no Tanh"
    assert "onnx2tf makes no file of it" in shown


def test_an_operator_that_does_not_load_is_found_and_its_script_says_so(tmp_path: Path) -> None:
    crop = 'Resize<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize">(second, corners, , sizes)'
    text = _LAYERS.replace("Tanh(second)", crop).replace(
        "y) {", "y) <float[8] corners = {0, 0, 0.1, 0.1, 1, 1, 0.9, 0.8}, int64[4] sizes = {1, 4, 12, 12}> {"
    )
    bundle = _layers(tmp_path, text)
    why = str(_tflite(bundle).failed[0].why)
    assert "onnx2tf does not lower 'bend' (Resize with coordinate_transformation_mode=tf_crop_and_resize)" in why
    assert "; neither route lowers 'bend' (Resize): part-" in why
    repro = tmp_path / "foreign-model.fp32.tflite-repro"
    shown = subprocess.run([sys.executable, repro / "repro.py"], capture_output=True, text=True, check=True).stdout
    assert "candidate: LiteRT does not run it: Encountered unresolved custom op: ONNX_RESIZE" in shown


def test_operators_that_read_constants_alone_are_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _LAYERS.replace(
        "second = Relu(first)", "second = Relu(first) steps = DequantizeLinear(q, s) up = Neg(steps)"
    )
    text = text.replace("y = Add(fourth, first)", "moved = Add(fourth, up) y = Add(moved, first)")
    text = text.replace(" y) {", " y) <int8[4,1,1] q = {1, -2, 3, -4}, float s = {0.5}> {")
    bundle = _layers(tmp_path, text)
    _without_tanh(monkeypatch, most_nodes=1)
    conversion = _tflite(bundle)
    assert [(one.precision, one.why, one.way) for one in conversion.outcomes] == [
        ("fp32", None, "with 'bend' (Tanh) by TensorFlow's converter"),
        ("int8", None, "with 'bend' (Tanh) by TensorFlow's converter"),
    ]


@pytest.mark.parametrize(
    ("error", "strict"), [(ConverterStopped("too long"), False), (ConversionFailed("the converter failed"), True)]
)
def test_no_other_way_is_tried_where_every_way_would_fail_or_strictness_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, strict: bool
) -> None:
    bundle = _imported(tmp_path)
    tasks = _failing(monkeypatch, _direct, error)
    if strict:
        with pytest.raises(ConversionFailed, match="the converter failed"):
            _tflite(bundle, strict=True)
    else:
        assert {one.why for one in _tflite(bundle).failed} == {"too long"}
    assert tasks.count("lower") == 1
