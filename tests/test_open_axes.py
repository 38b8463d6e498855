"""Axes that --input-shape names stay open in ONNX files, and have fixed sizes in every other place."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import toolkit
from backends import openvino
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput
from backends.ort import profile
from backends.registry import run_targets
from graphs.onnx.sizes import OpenAxis, fixed_shapes
from graphs.passes.registry import GraphPass, passes
from tests.foreign_graphs import toolkit as command
from tests.shared import made_once
from toolkit.convert.operations import computed_operations
from toolkit.convert.slices import fixed_graph
from toolkit.import_model import import_model

_SHAPES = {"image": (OpenAxis("N"), 3, OpenAxis("H", 32), OpenAxis("W", 48))}


class _Classifier(nn.Module):
    """Convolutions, attention over the pixels of a map, and a larger copy of the map: sizes that a graph computes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.GELU(), nn.Conv2d(32, 32, 3, padding=1))
        self.norm = nn.LayerNorm(32)
        self.attention = nn.Linear(32, 96)
        self.head = nn.Linear(32, 40)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(image)
        batch, channels, height, width = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        q, k, v = self.attention(tokens).reshape(batch, height * width, 3, channels).unbind(2)
        tokens = tokens + torch.softmax(q @ k.transpose(1, 2) / channels**0.5, -1) @ v
        x = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        larger = nn.functional.interpolate(x, scale_factor=2.0)
        return self.head(tokens.mean(1)), larger


def _source(folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "source.onnx"
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Classifier().eval(), (torch.rand(1, 3, 32, 48),), path, input_names=["image"],
            output_names=["logits", "map"], dynamic_axes=axes, dynamo=False, opset_version=17,
        )  # fmt: skip
    return path


def _make(folder: Path) -> None:
    shown = command("import", _source(folder), "-o", folder / "open", "--input-shape", "image=N,3,H:32,W:48")
    assert shown.exit_code == 0
    (folder / "import.txt").write_text(shown.stderr)
    precisions = [f"-p{precision}" for precision in ("fp32", "fp16", "int8", "int8-static")]
    shown = command("convert", folder / "open", *precisions, "--calibration", "generated")
    assert shown.exit_code == 0, shown.stderr
    shown = command("compare", folder / "open", "--json", folder / "compare.json")
    assert shown.exit_code == 0, shown.stdout


@pytest.fixture(scope="module")
def made() -> Path:
    """A folder with the source, and a bundle of it in four precisions."""
    return made_once("open-axes", _make)


def test_every_onnx_file_runs_at_any_size_and_every_tflite_file_at_one(made: Path) -> None:
    reference = onnxruntime.InferenceSession(made / "source.onnx")
    rng = np.random.default_rng(0)
    for shape in ((1, 3, 32, 48), (3, 3, 32, 48), (1, 3, 64, 40), (3, 3, 16, 80)):
        image = rng.random(shape, dtype=np.float32)
        expected = dict(zip(("logits", "map"), reference.run(None, {"image": image}), strict=True))
        for precision, most in (("fp32", 1e-5), ("fp16", 2e-3), ("int8", 0.1), ("int8-static", 0.2)):
            with toolkit.load(made / "open", precision=precision) as model:
                got = model.run(image)
            for name, values in expected.items():
                assert got[name].shape == values.shape
                assert np.linalg.norm(got[name] - values) <= most * np.linalg.norm(values), (shape, precision, name)
    with toolkit.load(made / "open", backend="tflite") as model:
        model.run(rng.random((1, 3, 32, 48), dtype=np.float32))
        with pytest.raises(InvalidInput, match="expected shape"):
            model.run(rng.random((3, 3, 32, 48), dtype=np.float32))


@pytest.mark.openvino
def test_openvino_takes_any_size_too_and_profiles_at_the_stated_one(made: Path) -> None:
    pytest.importorskip("openvino", reason="a machine without the extra [openvino]; the lock of `make test` has it")
    image = np.random.default_rng(1).random((3, 3, 64, 40), dtype=np.float32)
    with toolkit.load(made / "open") as model, toolkit.load(made / "open", backend="openvino") as other:
        expected, got = model.run(image), other.run(image)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-5 * np.ptp(values))
    assert openvino.profile(made / "open" / "model.onnx", 1, 1, "fp32")


def test_the_manifest_says_which_axes_are_open(made: Path) -> None:
    bundle = Bundle.open(made / "open")
    for artifact in bundle.artifacts:
        assert artifact.inputs[0].spec.shape == (1, 3, 32, 48)
        if artifact.format == "tflite":
            assert artifact.axes is None
            continue
        assert artifact.axes is not None
        assert artifact.axes["image"] == ("N", None, "H", "W")
        assert artifact.axes["logits"] in (("N", None), ("?", None))
        assert artifact.axes["map"][1:] == (None, "?", "?")
    said = "N, H, W stay open for ONNX Runtime; files for TFLite and all comparisons have image=1,3,32,48"
    assert said in bundle.mendings
    assert said in " ".join((made / "import.txt").read_text().split())


def test_a_fixed_axis_stays_fixed_and_an_open_one_is_the_same_everywhere(made: Path) -> None:
    with toolkit.load(made / "open") as model:
        with pytest.raises(InvalidInput, match=r"expected shape \(2, 3, 32, 48\), got \(2, 4, 32, 48\)"):
            model.run(np.zeros((2, 4, 32, 48), np.float32))
        with pytest.raises(InvalidInput, match="got NaN"):
            model.run(np.full((2, 3, 32, 48), np.nan, np.float32))
        with pytest.raises(InvalidInput, match="expected shape"):
            model.run(np.zeros((0, 3, 32, 48), np.float32))


def test_a_file_says_its_sizes_to_what_reads_it_alone(made: Path) -> None:
    assert {one.kind for one in profile(made / "open" / "model.onnx", 1, 1, "fp32")} >= {"Conv"}
    operations = computed_operations(made / "open" / "model.onnx")
    tflite = computed_operations(made / "open" / "model.fp32.tflite")
    assert operations["float32"] == pytest.approx(tflite["float32"], rel=0.01)


def test_tflite_gets_the_operators_that_a_fixed_graph_has(made: Path, tmp_path: Path) -> None:
    fixed = import_model(made / "source.onnx", tmp_path / "fixed", fixed_shapes(_SHAPES))
    graphs = [fixed_graph(folder / "model.onnx") for folder in (fixed.folder, made / "open")]
    kinds = [sorted(node.op_type for node in graph.graph) for graph in graphs]
    assert kinds[0] == kinds[1]
    assert "Shape" not in kinds[0]


def test_layers_are_found_in_the_files_of_an_open_graph(made: Path, tmp_path: Path) -> None:
    for candidate in ("model.int8.onnx", "model.int8.tflite"):
        shown = command(
            "bisect",
            made / "open",
            "--candidate",
            candidate,
            "--repro",
            tmp_path / candidate,
            "--json",
            tmp_path / "b.json",
        )
        assert shown.exit_code == 0, shown.stderr
        found = json.loads((tmp_path / "b.json").read_text())
        assert len(found["layers"]) >= 4
    shown = command(
        "bench", made / "open", "--time-limit", 0, "--profile", "--threads", 1, "--json", tmp_path / "c.json"
    )
    assert shown.exit_code == 0, shown.stderr
    assert {one["name"] for one in json.loads((tmp_path / "c.json").read_text())["files"]} == {
        target.name for artifact in Bundle.open(made / "open").artifacts for target in run_targets(artifact)
    }


def _baked(model: ir.Model) -> tuple[ir.Model, bool]:
    """Write sizes that hold for the first sizes alone into the first Reshape."""
    for node in model.graph:
        if node.op_type == "Reshape" and not node.outputs[0].is_graph_output():
            sizes = ir.Value(name="baked", const_value=ir.tensor(np.array([1, 96, 3, 32], np.int64), name="baked"))
            model.graph.initializers.add(sizes)
            node.replace_input_with(1, sizes)
            return model, True
    return model, False


def test_a_pass_that_is_wrong_at_another_size_is_left_out_and_named(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (*passes("export"), GraphPass("bake_sizes", "export", 0.0, (), _baked))
    monkeypatch.setattr("graphs.passes.simplify.passes", lambda stage: steps)
    notes: list[str] = []
    bundle = import_model(made / "source.onnx", tmp_path / "open", _SHAPES, note=notes.append)
    (note,) = (note for note in notes if "bake_sizes" in note)
    assert "prepared without the pass bake_sizes: " in note
    with toolkit.load(bundle.folder) as model:
        assert model.run(np.zeros((2, 3, 64, 64), np.float32))["logits"].shape == (2, 40)


def _square_map(folder: Path) -> Path:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[N,4,4] x) => (float[M,16] y) <int64[2] flat = {1, 16}> {
        y = Reshape(x, flat)
    }"""
    onnx.save(onnx.parser.parse_model(text), folder / "square.onnx")
    return folder / "square.onnx"


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"x": (OpenAxis("N", 1), 4, 4)}, "--input-shape: it runs at no other size of N than 1: .*"),
        ({"x": (1, OpenAxis("K"), 4)}, "the file states N,4,4; only an axis that the file leaves open can have a name"),
        ({"x": (OpenAxis("N", 1), 4, OpenAxis("N", 2))}, "axis N has the sizes 1 and 2"),
        ({"x": (OpenAxis("N", 0), 4, 4)}, "expected sizes of at least 1"),
    ],
)
def test_an_axis_that_cannot_stay_open_is_refused(tmp_path: Path, shapes: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        import_model(_square_map(tmp_path), tmp_path / "out", shapes)
    assert not (tmp_path / "out").exists()


def test_of_several_axes_the_one_that_cannot_stay_open_is_named(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[N,T] x) => (float[N,4] y) {
        h = Relu(x)
        y = Add(h, w)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 4), np.float32), "w"))
    onnx.save(model, tmp_path / "row.onnx")
    with pytest.raises(InvalidInput, match="it runs at no other size of T than 4: .*Add"):
        import_model(tmp_path / "row.onnx", tmp_path / "out", {"x": (OpenAxis("N"), OpenAxis("T", 4))})
    bundle = import_model(tmp_path / "row.onnx", tmp_path / "out", {"x": (OpenAxis("N"), 4)})
    assert bundle.artifacts[0].axes == {"x": ("N", None), "y": ("N", None)}


def test_sizes_follow_from_the_name_or_are_usual_ones() -> None:
    shapes = {"a": (OpenAxis("N"), 3, OpenAxis("H"), OpenAxis("W", 640)), "b": (OpenAxis("N"), OpenAxis("T"))}
    assert fixed_shapes(shapes) == {"a": (1, 3, 224, 640), "b": (1, 128)}
    assert fixed_shapes({"a": (OpenAxis("N"), OpenAxis("W")), "b": (OpenAxis("N", 4), 7)}) == {
        "a": (4, 128),
        "b": (4, 7),
    }


def test_a_manifest_with_axes_that_no_tensor_has_is_refused(made: Path) -> None:
    bundle = Bundle.open(made / "open")
    values = bundle.find("model", "onnx", "fp32").to_json()
    values["axes"] = {"image": ["N", None]}
    with pytest.raises(InvalidArtifact, match="axes of 'image': expected those of an input or output"):
        type(bundle.artifacts[0]).from_json(values, "artifact")
    values["axes"] = {"image": ["N", None, 7, "W"]}
    with pytest.raises(InvalidArtifact, match="expected names of axes and null, got 7"):
        type(bundle.artifacts[0]).from_json(values, "artifact")
