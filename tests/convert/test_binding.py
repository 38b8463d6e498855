"""Layouts are found by running the file, even where every shape allows both."""

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from backends.artifact import Artifact
from backends.bundle import sha256_of
from backends.errors import InvalidArtifact
from backends.registry import BACKENDS
from backends.tensor import Array, Binding, TensorSpec
from toolkit.convert.binding import bind_tflite
from toolkit.convert.converter import run_worker

# Three channels of 3 x 3, in and out: nothing but a run can tell NCHW from NHWC.
_CUBE = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,3,3,3] image) => (float[1,3,3,3] map) { map = Conv<pads = [1, 1, 1, 1]>(image, w) }"""
SHAPE = (1, 3, 3, 3)


def _artifact(path: Path, format: str) -> Artifact:
    bindings = {name: (Binding.same(TensorSpec(name, SHAPE, "float32", "NCHW")),) for name in ("image", "map")}
    return Artifact(
        file=path.name,
        role="detector",
        format=format,
        precision="fp32",
        route="direct" if format == "tflite" else None,
        inputs=bindings["image"],
        outputs=bindings["map"],
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        external_files=(),
        parent=None,
        tools={},
        architecture=None,
    )


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array, Array]:
    """The lowered cube, an image, and what ONNX Runtime makes of it."""
    folder = tmp_path_factory.mktemp("cube")
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(_CUBE)
    weight = random.standard_normal((3, 3, 3, 3), dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = folder / "cube.onnx"
    onnx.save(model, path)
    image = random.random(SHAPE, dtype=np.float32)
    with BACKENDS.load("ort").session(path, _artifact(path, "onnx"), 1) as session:
        expected = session.run({"image": image})["map"]
    result = run_worker(
        {"task": "lower", "models": {"fp32": str(path)}}, folder, folder / "log", 300, lambda step: None
    )
    return result.files["fp32"], image, expected


def test_the_layout_of_a_cube_is_the_one_that_computes_right(cube: tuple[Path, Array, Array]) -> None:
    path, image, expected = cube
    found = bind_tflite(path, _artifact(path, "tflite"), {"image": image}, {"map": expected})
    assert [binding.stored.layout for binding in (*found.inputs, *found.outputs)] == ["NHWC", "NHWC"]
    with BACKENDS.load("tflite").session(path, found, 1) as session:
        np.testing.assert_allclose(session.run({"image": image})["map"], expected, atol=1e-5)


def test_a_file_that_computes_something_else_is_refused(cube: tuple[Path, Array, Array]) -> None:
    path, image, expected = cube
    with pytest.raises(InvalidArtifact, match="differs from the float32 graph"):
        bind_tflite(path, _artifact(path, "tflite"), {"image": image}, {"map": expected * 1.01})


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("picture", SHAPE, "the file's signature has no tensor 'picture'"),
        ("image", (1, 3, 4, 4), r"tensor 'image' is float32 \(1, 3, 3, 3\), which cannot hold \(1, 3, 4, 4\)"),
    ],
)
def test_another_signature_is_refused(
    cube: tuple[Path, Array, Array], name: str, shape: tuple[int, ...], message: str
) -> None:
    from dataclasses import replace

    path, image, expected = cube
    wrong = replace(_artifact(path, "tflite"), inputs=(Binding.same(TensorSpec(name, shape, "float32", "NCHW")),))
    with pytest.raises(InvalidArtifact, match=message):
        bind_tflite(path, wrong, {"image": image}, {"map": expected})
