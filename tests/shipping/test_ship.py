"""A model goes all the way in one command or one call, and no failure costs the other results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import toolkit
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from graphs.checkpoint import random_weights
from graphs.networks.models import find_spec, fitting
from tests.foreign_graphs import save_graph, square_root
from tests.foreign_graphs import toolkit as command
from tests.shared import made_once
from toolkit.shipping import ship as steps
from toolkit.shipping.ship import ShipOptions, Shipped, ship_model
from toolkit.shipping.source import Source


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(16, 40)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(image).mean((2, 3)))}


def _module() -> nn.Module:
    torch.manual_seed(0)
    return Scores().eval()


def test_a_torch_module_comes_through_from_python_with_no_file_in_between(tmp_path: Path) -> None:
    told: list[str] = []

    def make(folder: Path) -> None:
        shipped = toolkit.ship(
            _module(), torch.rand(1, 3, 16, 20), folder / "mine", ["fp32", "int8"], threads=1, time_limit_s=0,
            progress=told.append,
        )  # fmt: skip
        (folder / "shipped.json").write_text(json.dumps(shipped.to_json()))
        (folder / "shipped.txt").write_text(str(shipped))

    folder = made_once("shipped", make)
    result = json.loads((folder / "shipped.json").read_text())
    assert result["failed"] == {}
    assert result["exit_code"] == 0
    assert result["weights"]["source"] == "Scores, a torch module"
    assert {file["file"]: file["verdict"] for file in result["files"]} == {
        "model.onnx": "reference",
        "model.fp32.tflite": "pass",
        "model.int8.tflite": "pass",
        "model.int8.onnx": "pass",
    }
    assert all(file["median_ms"] > 0 and file["speed"] > 0 for file in result["files"])
    assert [line.split(":")[0] for line in (folder / "shipped.txt").read_text().splitlines()] == [
        "ONNX Runtime",
        "LiteRT",
    ]
    assert "<html" in (folder / "mine" / "report.html").read_text()
    image = np.random.default_rng(0).random((1, 3, 16, 20), dtype=np.float32)
    with toolkit.load(folder / "mine", backend="tflite") as model:
        assert [spec.name for spec in model.inputs] == ["image"]
        got = model.run(image)["logits"]
    with torch.no_grad():
        expected = _module()(torch.from_numpy(image))["logits"].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    if told:  # another process of the run may have made it
        assert [step for step in steps.STEPS if any(f", {step}: " in line for line in told)] == list(steps.STEPS)
        assert not any("/tmp" in line for line in told)


def _shipped(folder: Path, source: Path, runtimes: tuple[str, ...] = ("ort",)) -> Shipped:
    options = ShipOptions(("fp32", "int8"), runtimes, threads=1, time_limit_s=0)  # type: ignore[arg-type]
    return ship_model(Source(str(source)).make, folder, options)


def _linear(folder: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("x", "y")]
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weight, "weight")])
    return save_graph(folder, graph)


@pytest.mark.parametrize("step", ["convert_bundle", "compare_bundle", "bench_bundle", "write_page"])
def test_a_step_that_fails_costs_no_other_and_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(steps, step, broken)
    shipped = _shipped(tmp_path / "bundle", _linear(tmp_path))
    name = {"convert_bundle": "convert", "compare_bundle": "compare", "bench_bundle": "bench", "write_page": "report"}
    assert shipped.failed == {name[step]: "ValueError: no such luck"}
    assert shipped.exit_code == 2
    assert "failed: ValueError: no such luck" in str(shipped)
    assert (shipped.conversion is None) == (step == "convert_bundle")
    assert (shipped.bench is None) == (step == "bench_bundle")
    assert (shipped.report is None) == (step in ("write_page", "compare_bundle"))
    if step == "bench_bundle":
        assert shipped.report is not None
        assert "Nothing was timed: ValueError: no such luck." in shipped.report.read_text()
    assert shipped.choices[0].smallest is not None


def test_without_the_converter_the_files_for_onnx_runtime_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise NotAvailable("run `toolkit setup-converter`")

    monkeypatch.setattr(steps, "converter_python", missing)
    shipped = _shipped(tmp_path / "bundle", _linear(tmp_path), ("ort", "tflite"))
    assert shipped.failed == {"convert": "no files for TFLite: run `toolkit setup-converter`"}
    assert [file.file for file in shipped.files] == ["model.onnx", "model.int8.onnx"]
    assert shipped.exit_code == 2


def test_a_file_that_fails_its_comparison_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.parity import compare

    def strict(*arguments: object) -> tuple[object, ...]:
        (check,) = [one for one in real(*arguments) if one.number == "relative_l2"]  # type: ignore[arg-type]
        return (type(check)(check.number, check.where, 1.0, 0.5, False, ""),)

    real = compare.judge
    monkeypatch.setattr(compare, "judge", strict)
    shipped = _shipped(tmp_path / "bundle", _linear(tmp_path))
    assert shipped.exit_code == 1
    assert "model.int8.onnx: fail: " in str(shipped)


def test_the_command_prints_a_row_for_each_file_the_advice_and_the_report(tmp_path: Path) -> None:
    out = tmp_path / "shipped.json"
    shown = command(
        "ship", _linear(tmp_path), "-o", tmp_path / "bundle", "--runtime", "ort", "-p", "int8", "--time-limit", 0,
        "--threads", 1, "--json", out,
    )  # fmt: skip
    assert shown.exit_code == 0
    (note,) = shown.stderr.splitlines()
    assert note.startswith("note: The verdict is advisory: no real inputs were given")
    assert "model.int8.onnx" in shown.stdout
    assert "ONNX Runtime: take model.int8.onnx: the smallest that passes" in shown.stdout
    assert shown.stdout.rstrip().endswith("report.html")
    assert [file["file"] for file in json.loads(out.read_text())["files"]] == ["model.onnx", "model.int8.onnx"]


def test_real_inputs_are_kept_and_calibrate(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, x=np.random.default_rng(0).random((3, 1, 64), dtype=np.float32))
    arguments = ["ship", _linear(tmp_path), "--runtime", "ort", "-p", "int8", "-p", "int8-static", "--time-limit", 0]
    shown = command(*arguments, "-o", tmp_path / "with", "--inputs", inputs, "--judge", "top1:y")
    assert shown.exit_code == 0
    assert Bundle.open(tmp_path / "with").model["judge"] == "top1:y"
    assert Bundle.open(tmp_path / "with").model["inputs"]["path"] == "../inputs.npz"
    shown = command(*arguments, "-o", tmp_path / "without")
    assert shown.exit_code == 2
    assert "note: int8-static: calibrated on generated images; --inputs gives those" in shown.stderr
    assert "model.int8-static.onnx: not made: " in shown.stderr


@pytest.mark.parametrize(
    ("precisions", "said"),
    [(("mixed",), "precision mixed needs a recipe file"), (("fp32",), "nothing to make for ort")],
)
def test_precisions_that_cannot_be_made_are_refused_before_anything_is_done(
    tmp_path: Path, precisions: tuple[str, ...], said: str
) -> None:
    shown = command("ship", _linear(tmp_path), "-o", tmp_path / "b", *(f"-p{name}" for name in precisions),
                    *(() if "mixed" in precisions else ("--runtime", "ort")))  # fmt: skip
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert said in shown.stderr
    assert not (tmp_path / "b").exists()


def test_files_that_cannot_be_made_are_rows_with_a_reason_and_exit_code_2(tmp_path: Path) -> None:
    shown = command(
        "ship", square_root(tmp_path), "-o", tmp_path / "bundle", "--runtime", "ort", "-p", "int8", "--time-limit", 0
    )
    assert shown.exit_code == 2
    assert "model.int8.onnx: not made: int8 is impossible here" in " ".join(shown.stderr.split())
    assert "not made" in shown.stdout
    assert "ONNX Runtime: take model.onnx" in shown.stdout


def test_a_usual_precision_that_changes_no_weight_is_a_row_and_no_failure(tmp_path: Path) -> None:
    shown = command("ship", square_root(tmp_path), "-o", tmp_path / "bundle", "--runtime", "ort", "--time-limit", 0,
                    "--json", tmp_path / "shipped.json")  # fmt: skip
    assert shown.exit_code == 0
    result = json.loads((tmp_path / "shipped.json").read_text())
    assert {file["file"]: file["verdict"] for file in result["files"]} == {
        "model.onnx": "reference",
        "model.fp16.onnx": "impossible",
        "model.int8.onnx": "impossible",
    }
    assert "model.fp16.onnx: impossible: fp16 is impossible here: the graph has no weights" in shown.stderr
    assert shown.stdout.count("impossible") == 2


@pytest.mark.parametrize(
    ("model", "options", "error", "said"),
    [
        ("gone.onnx", {}, InvalidInput, "gone.onnx"),
        ("gone", {}, NotAvailable, "gone: there is no such file; expected an ONNX file, a checkpoint"),
        ("gone.pth", {}, NotAvailable, "gone.pth: no such checkpoint file"),
        ("m.onnx", {"checkpoints": (Path("w.pth"),)}, InvalidInput, "give no --checkpoint"),
        ("pocketseal", {"shapes": {"x": (1,)}}, InvalidInput, "have fixed sizes"),
        ("timm/x", {"checkpoints": (Path("a"), Path("b"))}, InvalidInput, "expected one --checkpoint, got 2"),
        ("pocketseal", {"kept": {"inputs": Path("x"), "preprocess": None}}, InvalidInput, "has its own samples"),
        ("timm/x", {"values": {"x": np.zeros(1)}}, InvalidInput, "--input-value is for ONNX files"),
    ],
)
def test_a_model_that_there_is_none_of_or_an_option_that_it_does_not_take_is_refused(
    tmp_path: Path, model: str, options: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Source(model, **options).make(tmp_path / "bundle", lambda step: None, lambda line: None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_sort_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InvalidInput, match="notes.txt: expected an ONNX file, a checkpoint"):
        Source(str(tmp_path / "notes.txt")).make(tmp_path / "bundle", lambda step: None, lambda line: None)


def test_a_checkpoint_of_no_known_model_is_refused_with_the_way_on(tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(2)}}, tmp_path / "w.pth")
    with pytest.raises(InvalidArtifact, match="the checkpoint of no model in `toolkit models`; export your network"):
        Source(str(tmp_path / "w.pth")).make(tmp_path / "bundle", lambda step: None, lambda line: None)


def test_a_checkpoint_is_recognized_and_the_graphs_that_it_holds_are_exported(tmp_path: Path) -> None:
    spec = find_spec("pocketseal").only("detector")
    graph = spec.graph("detector")
    state = random_weights(3, spec).states["detector"]
    torch.save({"model": {graph.key(name): value for name, value in state.items()}}, tmp_path / "w.pth")
    bundle = Source(str(tmp_path / "w.pth")).make(tmp_path / "bundle", lambda step: None, lambda line: None)
    assert (bundle.model["name"], bundle.weights.origin, bundle.weights.source) == (
        "pocketseal",
        "checkpoint",
        "w.pth",
    )
    assert {artifact.role for artifact in bundle.artifacts} == {"detector"}


def test_a_checkpoint_that_fits_several_models_is_refused_with_the_command_for_one(tmp_path: Path) -> None:
    detector = find_spec("videoseal-1.0").graph("detector")
    shapes = {detector.key(name): torch.empty(value.shape) for name, value in detector.expected_state().items()}
    assert fitting({name: tuple(value.shape) for name, value in shapes.items()}) == {
        "videoseal-1.0": ("detector",),
        "pixelseal": ("detector",),
    }
    torch.save({"model": shapes}, tmp_path / "w.pth")
    with pytest.raises(InvalidArtifact, match="several models: name one, `toolkit ship videoseal-1.0 --checkpoint"):
        Source(str(tmp_path / "w.pth")).make(tmp_path / "bundle", lambda step: None, lambda line: None)


def test_a_model_without_weights_gets_random_ones_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit import export

    notes: list[str] = []
    monkeypatch.setattr(export, "SHIPPED", tmp_path)
    bundle = Source("pocketseal").make(tmp_path / "bundle", lambda step: None, notes.append)
    assert bundle.weights.is_random
    assert notes == ["pocketseal: its weights are random, because none ship with this package: give --checkpoint FILE"]
