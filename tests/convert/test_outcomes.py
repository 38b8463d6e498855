"""Each file of a conversion is made or not independently of the others, and what came of it is said for each."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from click.testing import CliRunner, Result

from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from graphs.passes.registry import passes
from toolkit.cli import main
from toolkit.convert import slices
from toolkit.convert.converter import ConversionFailed, WorkerResult, run_worker
from toolkit.convert.outcome import Conversion
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.quantize.mixed import MixedRecipe, MixedRequest
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle

_DENSE = "(float[4,64] x) => (float[4,64] y) { y = MatMul(x, w) }"
# onnx2tf does not lower Scan.
_SCAN = """(float[4,64] x) => (float[4,64] y) {
    h = MatMul(x, w)
    last, y = Scan<num_scan_inputs = 1, body = step
    (float[64] before, float[64] given) => (float[64] after, float[64] shown) {
        after = Max(before, given)
        shown = Identity(after)
    }>(start, h)
}"""
# Without the pass that keeps small bounds, onnx2tf takes Max for a ReLU, and zeros are divided by 0.
_GUARDED = """(float[4,64] x) => (float[4,64] y) <float tiny = {1e-12}> {
    h = MatMul(x, w)
    large = Abs(x)
    total = ReduceSum<keepdims = 1>(large)
    bounded = Max(total, tiny)
    y = Div(h, bounded)
}"""


def _imported(folder: Path, text: str, weight: Any = None, **others: Any) -> Bundle:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {text}')
    if weight is None:
        weight = np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32)
    for name, values in {"w": weight, **others}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    if "start" in text:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(64, np.float32), "start"))
        model.graph.node[1].name = "running"
    onnx.save(model, folder / "source.onnx")
    return import_model(folder / "source.onnx", folder / "foreign", {})


def _files(bundle: Bundle) -> set[str]:
    return {artifact.file for artifact in Bundle.open(bundle.folder).artifacts} - {"model.onnx"}


def _made(conversion: Conversion) -> set[str]:
    return {one.file for one in conversion.outcomes if one.made}


def _convert(bundle: Bundle, *arguments: str) -> Result:
    command = ["convert", str(bundle.folder), *arguments]
    return CliRunner(env={"COLUMNS": "150"}).invoke(main, command, catch_exceptions=False)


def test_what_cannot_be_lowered_costs_no_file_of_onnx_runtime(tmp_path: Path) -> None:
    bundle = _imported(tmp_path, _SCAN)
    shown = _convert(bundle)
    assert shown.exit_code == 2
    rows = {line.split()[0]: line.split()[-1] for line in shown.stdout.splitlines() if line.startswith(" model.")}
    assert rows == {
        "model.onnx": "0.02",
        "model.fp16.onnx": "made",
        "model.int8.onnx": "made",
        "model.fp32.tflite": "failed",
        "model.fp16.tflite": "failed",
        "model.int8.tflite": "failed",
    }
    (why,) = (line for line in shown.stderr.splitlines() if line.startswith("error: "))
    assert why.startswith("error: not made: model.fp32.tflite, model.fp16.tflite, model.int8.tflite: ")
    assert "onnx2tf does not lower 'running' (Scan)" in why
    assert _files(bundle) == {"model.fp16.onnx", "model.int8.onnx"}
    assert compare_bundle(Bundle.open(bundle.folder)).passed


def test_strict_ends_at_the_first_failure_and_adds_nothing(tmp_path: Path) -> None:
    bundle = _imported(tmp_path, _SCAN)
    shown = _convert(bundle, "--strict")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "onnx2tf does not lower 'running' (Scan)" in shown.stderr.splitlines()[-1]
    assert _files(bundle) == set()
    with pytest.raises(NotAvailable, match="does not lower 'running'"):
        convert_bundle(bundle.folder, conversion_rules, strict=True)


def test_the_files_of_one_runtime_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = _imported(tmp_path, _DENSE)
    shown = _convert(bundle, "--runtime", "tflite")
    assert shown.exit_code == 0
    assert _files(bundle) == {f"model.{precision}.tflite" for precision in ("fp32", "fp16", "int8")}
    monkeypatch.setenv("TOOLKIT_CONVERTER", str(tmp_path / "gone"))  # ONNX Runtime's files need no converter
    assert _convert(bundle, "--runtime", "ort").exit_code == 0
    assert {"model.fp16.onnx", "model.int8.onnx"} < _files(bundle)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-p", "fp32", "--runtime", "ort"), "nothing to make for ort: the float32 file of ort is the graph itself"),
        (("-p", "int16x8", "--runtime", "ort", "--calibration", "generated"), "ONNX Runtime cannot run int16x8"),
        (("--route", "tf", "--runtime", "ort"), "nothing to make for ort: the tf route makes TFLite files only"),
        (("--runtime", "torch"), "Invalid value for '--runtime'"),
    ],
)
def test_a_runtime_with_nothing_to_make_is_refused(tiny: Bundle, arguments: tuple[str, ...], said: str) -> None:
    shown = _convert(tiny, *arguments)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert said in shown.stderr


def test_mixed_files_are_made_for_both_runtimes_or_not_at_all(tiny: Bundle) -> None:
    request = MixedRequest(kept=MixedRecipe((), (), ""))
    with pytest.raises(InvalidInput, match="mixed: its files are made for both runtimes together"):
        convert_bundle(tiny.folder, conversion_rules, ("mixed",), mixed=request, runtimes=("ort",))


def _without(monkeypatch: pytest.MonkeyPatch, precision: str, dies: bool) -> None:
    """Let the quantizer fail for one precision: it says so, or its process ends."""
    run = run_worker

    def failing(request: dict[str, Any], *arguments: Any) -> WorkerResult:
        if precision not in request.get("recipes", {}):
            return run(request, *arguments)
        if dies:
            raise ConversionFailed("the converter was killed by SIGSEGV")
        result = run(request, *arguments)
        return WorkerResult(result.files, result.tools, {f"slice 1 of 1.{precision}": "ValueError: too coarse"})

    monkeypatch.setattr("toolkit.convert.job.run_worker", failing)


@pytest.mark.parametrize(("dies", "why"), [(False, "ValueError: too coarse"), (True, "was killed by SIGSEGV")])
def test_a_precision_that_the_quantizer_cannot_make_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool, why: str
) -> None:
    _without(monkeypatch, "int8", dies)
    bundle = _imported(tmp_path, _DENSE)
    conversion = convert_bundle(bundle.folder, conversion_rules)
    assert _made(conversion) == {"model.fp32.tflite", "model.fp16.tflite", "model.fp16.onnx", "model.int8.onnx"}
    assert _files(bundle) == _made(conversion)
    (failed,) = conversion.failed
    assert (failed.file, failed.runtime, failed.precision) == ("model.int8.tflite", "tflite", "int8")
    assert why in str(failed.why)
    assert not [path for path in bundle.folder.iterdir() if path.is_dir()]
    with pytest.raises(ConversionFailed, match=why):
        convert_bundle(bundle.folder, conversion_rules, strict=True)


def test_the_slices_of_a_conversion_that_failed_half_way_are_kept_for_the_next(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.convert.slices.DEFAULT_LIMIT_BYTES", 1)
    run = run_worker

    def failing(request: dict[str, Any], *arguments: Any) -> WorkerResult:
        if "slice 2 of 2" in request.get("models", {}):
            raise ConversionFailed("the converter took longer than 1 s and was stopped")
        return run(request, *arguments)

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.convert.job.run_worker", failing)
        conversion = convert_bundle(tiny.folder, conversion_rules, ("fp32", "fp16"), slice_limit_bytes=5400)
    assert _made(conversion) == {"detector.fp16.onnx"}
    assert {str(one.why) for one in conversion.failed} == {"the converter took longer than 1 s and was stopped"}
    conversion = convert_bundle(
        tiny.folder, conversion_rules, ("fp32", "fp16"), slice_limit_bytes=5400, progress=lines.append
    )
    assert not conversion.failed
    assert "going on after slice 1 of 2" in lines


def test_a_fault_of_our_own_is_a_failure_of_its_file_with_a_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("node")

    monkeypatch.setattr("toolkit.convert.job.quantize_onnx", fail)
    bundle = _imported(tmp_path, _DENSE)
    conversion = convert_bundle(bundle.folder, conversion_rules, ("fp32", "fp16"))
    assert _made(conversion) == {"model.fp32.tflite", "model.fp16.tflite"}
    (failed,) = conversion.failed
    assert str(failed.why).startswith("KeyError: 'node'; this is a fault of the toolkit")
    log = bundle.folder / "convert-model-direct.log"
    assert str(log) in str(failed.why)
    assert 'raise KeyError("node")' in log.read_text(encoding="utf-8")


def test_a_full_disk_ends_the_conversion_and_another_error_of_the_system_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = errno.ENOSPC

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("toolkit.convert.job.quantize_onnx", fail)
    bundle = _imported(tmp_path, _DENSE)
    with pytest.raises(NotAvailable, match="no room on the disk"):
        convert_bundle(bundle.folder, conversion_rules, ("fp32", "fp16"))
    assert _files(bundle) == set()
    number = errno.EIO
    conversion = convert_bundle(bundle.folder, conversion_rules, ("fp32", "fp16"))
    assert _made(conversion) == {"model.fp32.tflite", "model.fp16.tflite"}


def test_a_file_of_an_earlier_conversion_stays_and_each_reason_names_its_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InvalidArtifact("model.fp16.onnx: ONNX Runtime cannot load it")

    bundle = _imported(tmp_path, _DENSE)
    assert _convert(bundle, "-p", "fp16", "--runtime", "ort").exit_code == 0
    before = (bundle.folder / "model.fp16.onnx").read_bytes()
    monkeypatch.setattr("toolkit.convert.job.quantize_onnx", fail)
    shown = _convert(bundle, "-p", "fp16", "--runtime", "ort")
    assert shown.exit_code == 2
    assert (
        "error: not made: model.fp16.onnx (the file of an earlier conversion stays): ONNX Runtime cannot load it"
    ) in shown.stderr
    assert (bundle.folder / "model.fp16.onnx").read_bytes() == before
    Bundle.open(bundle.folder).verify(Bundle.open(bundle.folder).find("model", "onnx", "fp16"))


def test_files_that_cannot_be_timed_are_made_and_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotAvailable("too little memory")

    monkeypatch.setattr("toolkit.bench.speed.compare_speed", fail)
    shown = _convert(_imported(tmp_path, _DENSE), "-p", "fp16", "--runtime", "ort")
    assert shown.exit_code == 0
    assert "note: the files were not timed: too little memory" in shown.stderr
    assert " made" in shown.stdout


def test_a_wrong_lowering_costs_every_tflite_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = tuple(step for step in passes("lowering") if step.name != "keep_small_bounds")
    monkeypatch.setattr(slices, "passes", lambda stage: fewer)
    monkeypatch.setattr("toolkit.convert.healing.passes", lambda stage: fewer if stage == "lowering" else passes(stage))
    bundle = _imported(tmp_path, _GUARDED)
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.convert.healing.other_ways", lambda job: ())
        # The float32 file is judged even where it was not asked for: the INT8 one has the same fault.
        conversion = convert_bundle(bundle.folder, conversion_rules, ("int8",))
    assert _made(conversion) == _files(bundle) == {"model.int8.onnx"}
    (failed,) = conversion.failed
    assert "the file of the converter has other outputs than the graph: y: not_finite" in str(failed.why)
    (healed,) = convert_bundle(bundle.folder, conversion_rules, ("int8",), runtimes=("tflite",)).outcomes
    assert (healed.why, healed.way) == (None, "by TensorFlow's converter (--route tf)")


def test_whether_a_file_is_good_is_said_once_by_the_code_of_compare(tmp_path: Path) -> None:
    """Eight bits lose most of the small weights: the file is far off on one input, and added and called so."""
    weight = np.random.default_rng(0).normal(0, 1e-3, (64, 64)).astype(np.float32)
    weight[0] = 1
    text = """(float[4,64] x) => (float[4,64] y)
    <float[4,1] none = {0, 0, 0, 0}, int64[1] one = {1}, int64[1] end = {64}> {
        rest = Slice(x, one, end, one)
        moved = Concat<axis = 1>(none, rest)
        y = MatMul(moved, w)
    }"""
    bundle = _imported(tmp_path, text, weight)
    conversion = convert_bundle(bundle.folder, conversion_rules, ("fp32", "int8-w"))
    assert not conversion.failed
    assert {one.file for one in conversion.over} == {"model.int8-w.tflite", "model.int8-w.onnx"}
    (role,) = compare_bundle(Bundle.open(bundle.folder)).roles
    assert {file.name for file in role.files if not file.passed} == {one.file for one in conversion.over}


def _broken_map(*_: object) -> None:
    raise InvalidArtifact("tensor 'h' is made by no operator of the file")


def test_a_map_of_tensors_that_cannot_be_made_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.convert.direct.map_tensors", _broken_map)
    bundle = _imported(tmp_path, _DENSE)
    shown = _convert(bundle, "-p", "fp32")
    assert shown.exit_code == 0
    (note,) = (line for line in shown.stderr.splitlines() if line.startswith("note: "))
    assert "`toolkit bisect` will not find layers of the graph in the files: tensor 'h' is made by no operator" in note
    assert _files(bundle) == {"model.fp32.tflite"}


@pytest.mark.parametrize(
    ("options", "code", "sort", "outcome"),
    [
        ((), 0, "note", "impossible"),
        (("--strict",), 0, "note", "impossible"),
        (("-p", "fp32", "-p", "fp16", "-p", "int8"), 2, "error", "failed"),
    ],
)
def test_a_file_that_would_be_the_float32_one_is_not_made_under_another_name(
    tmp_path: Path, options: tuple[str, ...], code: int, sort: str, outcome: str
) -> None:
    # Float16 cannot hold the bounds, and int8 is for weights.
    bundle = _imported(tmp_path, "(float[4,64] x) => (float[4,64] y) { y = Min(x, w) }", np.full((4, 64), 1e38))
    shown = _convert(bundle, *options)
    assert shown.exit_code == code
    rows = {line.split()[0]: line.split()[-1] for line in shown.stdout.splitlines() if line.startswith(" model.")}
    impossible = {f"model.{name}.{end}": outcome for name in ("fp16", "int8") for end in ("onnx", "tflite")}
    assert rows == {"model.onnx": "0.00", "model.fp32.tflite": "made"} | impossible
    assert [line for line in shown.stderr.splitlines() if "not made" in line] == [
        f"{sort}: not made: model.{name}.{end}: {name} is impossible here: all weights belong to {operator} "
        f"(1024 bytes), which it leaves in float32: model.{name}.{end} would be the float32 file under another name; "
        "use fp32"
        for end, operator in (("tflite", "MINIMUM"), ("onnx", "Min"))
        for name in ("fp16", "int8")
    ]
    assert _files(bundle) == {"model.fp32.tflite"}


def test_a_small_convolution_is_stored_where_nothing_else_is(tmp_path: Path) -> None:
    text = """(float[1,8,6,6] x) => (float[1,8,6,6] y) {
        h = Conv<pads = [1, 1, 1, 1]>(x, w)
        y = Relu(h)
    }"""
    bundle = _imported(tmp_path, text, np.random.default_rng(0).normal(0, 0.1, (8, 8, 3, 3)))
    conversion = convert_bundle(bundle.folder, conversion_rules, runtimes=("ort",))
    assert [(one.file, one.weights[0]) for one in conversion.outcomes] == [
        ("model.fp16.onnx", ("float16", 1.0)),
        ("model.int8.onnx", ("int8", pytest.approx(576 / 608))),
    ]
    assert compare_bundle(Bundle.open(bundle.folder)).passed


def test_a_graph_without_weights_has_one_precision(tmp_path: Path) -> None:
    bundle = _imported(tmp_path, "(float[4,64] x) => (float[4,64] y) { y = Tanh(x) }")
    conversion = convert_bundle(bundle.folder, conversion_rules)
    assert _made(conversion) == {"model.fp32.tflite"}
    assert not conversion.failed
    impossible = [one for one in conversion.outcomes if one.impossible]
    assert {one.precision for one in impossible} == {"fp16", "int8"}
    assert {str(one.why).partition(":")[2] for one in impossible if one.precision == "fp16"} == {
        f" the graph has no weights: model.fp16.{end} would be the float32 file under another name; use fp32"
        for end in ("tflite", "onnx")
    }


def test_a_file_whose_weights_mostly_stay_float32_is_said_to_be_so(tmp_path: Path) -> None:
    text = """(float[1,500,64] x) => (float[1,500,8] y) {
        bounded = Min(x, w)
        y = MatMul(bounded, v)
    }"""
    bounds = np.full((1, 500, 64), 1e38, np.float32)  # more than a float16 holds
    bundle = _imported(tmp_path, text, bounds, v=np.random.default_rng(0).normal(0, 0.1, (64, 8)))
    shown = _convert(bundle, "-p", "fp32", "-p", "int8", "--runtime", "ort", "--runtime", "tflite")
    assert shown.exit_code == 0
    for name in ("model.int8.onnx", "model.int8.tflite"):
        (row,) = (line for line in shown.stdout.splitlines() if line.startswith(f" {name}"))
        assert " >99% float32, <1% int8 " in row
        assert f"warning: {name}: most of its weights stay in float32: M" in shown.stderr
    assert "Min (128000 bytes)" in shown.stderr
    assert "warning: model.fp32.tflite" not in shown.stderr


def test_the_table_says_in_which_types_the_weights_are_stored(tmp_path: Path) -> None:
    bundle = _imported(tmp_path, _DENSE)
    shown = _convert(bundle)
    rows = {line.split()[0]: line for line in shown.stdout.splitlines() if line.startswith(" model.")}
    assert " 100% float32 " in rows["model.fp32.tflite"]
    assert " 97% float16, 3% float32 " in rows["model.fp16.tflite"]  # the lowering adds a bias
    # 4096 weights of a byte; the scale of each of 64 channels has four.
    assert " 94% int8, 6% float32 " in rows["model.int8.onnx"]
    conversion = convert_bundle(bundle.folder, conversion_rules, ("int8",), runtimes=("ort",))
    assert dict(conversion.outcomes[0].weights)["int8"] == pytest.approx(4096 / (4096 + 256), abs=0.001)


def test_a_graph_that_cannot_be_calibrated_gets_the_files_that_need_no_calibration(tmp_path: Path) -> None:
    bundle = _imported(tmp_path, _DENSE)  # its input is no image
    arguments = ("--calibration", "generated", "-p", "int8-static")
    shown = _convert(bundle, *arguments, "-p", "fp32", "-p", "int8")
    assert shown.exit_code == 2
    assert _files(bundle) == {"model.fp32.tflite", "model.int8.tflite", "model.int8.onnx"}
    (why,) = (line for line in shown.stderr.splitlines() if line.startswith("error: "))
    assert (
        "not made: model.int8-static.tflite, model.int8-static.onnx: model.onnx: expected one input for images" in why
    )
    alone = _convert(bundle, *arguments)
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert "expected one input for images" in alone.stderr
