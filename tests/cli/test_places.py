"""Every command works from another directory, with relative, absolute and linked paths."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from backends.bundle import Bundle
from tests.foreign_graphs import toolkit
from tests.tiny import FOLDER
from toolkit.images.samples import shipped_photographs


def _source(folder: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 64])
    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    path = folder / "source.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="source.onnx.data", size_threshold=0)
    return path


def _hub(folder: Path, source: Path) -> Path:
    """Return the path of a file in a folder like the cache of the Hugging Face Hub: a link, as its weights are."""
    blobs, snapshot = folder / "hub" / "blobs", folder / "hub" / "snapshots" / "1f" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for blob, file in (("a1", source), ("b2", source.with_name("source.onnx.data"))):
        (blobs / blob).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../../blobs") / blob)
    return snapshot / source.name


@pytest.mark.parametrize("place", ["relative", "absolute", "linked", "hub"])
def test_every_command_takes_paths_from_another_directory(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, work = tmp_path / "models", tmp_path / "work"
    for folder in (models, work):
        folder.mkdir()
    source = _source(models)
    (tmp_path / "linked").symlink_to(models)
    if place == "hub":
        source = _hub(tmp_path, source)
    monkeypatch.chdir(work)
    root = {"relative": Path("../models"), "linked": tmp_path / "linked"}.get(place, models)
    given = source if place == "hub" else root / source.name
    bundle = root / "out"

    def run(*arguments: object) -> str:
        shown = toolkit(*arguments)
        assert shown.exit_code == 0, shown.output
        return shown.stdout

    run("import", given, "-o", bundle)
    assert Bundle.open(bundle).weights.source == "source.onnx"
    run("convert", bundle, "-p", "int8", "--runtime", "ort")
    assert "1 of 1 files pass" in run("compare", bundle)
    run("bisect", bundle, "--candidate", bundle / "model.int8.onnx", "--before", given, "--repro", "repro")
    assert (work / "repro" / "repro.py").is_file()
    run("bench", bundle, "--time-limit", "0", "--source", given, "--json", "bench.json")
    files = json.loads((work / "bench.json").read_text())["files"]
    assert {file["file"] for file in files} == {"model.onnx", "model.int8.onnx"}


@pytest.mark.parametrize("place", ["relative", "absolute", "linked"])
def test_an_image_is_read_by_a_bundle_of_another_directory(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "linked").symlink_to(FOLDER)
    (tmp_path / "work" / "photo.jpg").symlink_to(shipped_photographs()[0])
    monkeypatch.chdir(tmp_path / "work")
    bundle = {"relative": Path("../linked"), "absolute": FOLDER, "linked": tmp_path / "linked"}[place]
    shown = toolkit("run", "photo.jpg", "--bundle", bundle, "--backend", "ort", "--json")
    assert shown.exit_code == 0, shown.output
    (line,) = shown.stdout.splitlines()
    assert json.loads(line)["image"].endswith("photo.jpg")
