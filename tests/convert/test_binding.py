"""Layouts are found by running the file, even where every shape allows both."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx.parser
import pytest

from backends.artifact import Artifact
from backends.bundle import sha256_of
from backends.errors import InvalidArtifact
from backends.litert import TfliteSession
from backends.precision import RECIPES
from backends.registry import BACKENDS
from backends.tensor import Array, Binding, TensorSpec
from tests.shared import made_once
from toolkit.convert import binding
from toolkit.convert.binding import bind_tflite, check_error
from toolkit.convert.converter import run_worker

# Three channels of 3 x 3, in and out: nothing but a run can tell NCHW from NHWC.
_CUBE = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,3,3,3] image) => (float[1,3,3,3] map) { map = Conv<pads = [1, 1, 1, 1]>(image, w) }"""
SHAPE = (1, 3, 3, 3)
# Four cubes in, two out, each of which another one is multiplied with: 64 ways to read them.
_CUBES = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,3,3,3] a, float[1,3,3,3] b, float[1,3,3,3] c, float[1,3,3,3] d)
=> (float[1,3,3,3] left, float[1,3,3,3] right)
{
  of_a = Conv<pads = [1, 1, 1, 1]>(a, w)
  of_b = Conv<pads = [1, 1, 1, 1]>(b, w)
  of_c = Conv<pads = [1, 1, 1, 1]>(c, w)
  of_d = Conv<pads = [1, 1, 1, 1]>(d, w)
  left = Mul(of_a, of_b)
  sum = Add(of_c, of_d)
  right = Mul(left, sum)
}"""
CUBES = ("a", "b", "c", "d")


def _same(*names: str) -> tuple[Binding, ...]:
    return tuple(Binding.same(TensorSpec(name, SHAPE, "float32", "NCHW")) for name in names)


def _artifact(
    path: Path, format: str, inputs: tuple[str, ...] = ("image",), outputs: tuple[str, ...] = ("map",)
) -> Artifact:
    return Artifact(
        file=path.name,
        role="detector",
        format=format,
        precision="fp32",
        route="direct" if format == "tflite" else None,
        inputs=_same(*inputs),
        outputs=_same(*outputs),
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        external_files=(),
        parent=None,
        tools={},
        architecture=None,
    )


def _lower(folder: Path) -> None:
    """Write cube.onnx and cubes.onnx, and the TFLite file of each."""
    models = {}
    for name, text in (("cube", _CUBE), ("cubes", _CUBES)):
        model = onnx.parser.parse_model(text)
        weight = np.random.default_rng(0).standard_normal((3, 3, 3, 3), dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
        onnx.save(model, folder / f"{name}.onnx")
        models[name] = str(folder / f"{name}.onnx")
    request = {"task": "lower", "models": models}
    for name, path in run_worker(request, folder, folder / "log", 300, lambda step: None).files.items():
        path.rename(folder / f"{name}.tflite")


@pytest.fixture
def cube() -> tuple[Path, Array, Array]:
    """The lowered cube, an image, and what ONNX Runtime makes of it."""
    folder = made_once("cubes", _lower)
    image = np.random.default_rng(1).random(SHAPE, dtype=np.float32)
    path = folder / "cube.onnx"
    with BACKENDS.load("ort").session(path, _artifact(path, "onnx"), 1) as session:
        expected = session.run({"image": image})["map"]
    return folder / "cube.tflite", image, expected


class Counted(TfliteSession):
    """A session that counts how often it is opened and run."""

    opened: ClassVar[int]
    runs: ClassVar[int]

    def _open(self) -> None:
        type(self).opened += 1
        super()._open()

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        type(self).runs += 1
        return super()._run(feeds)


# As onnx2tf stores them.
STORED = dict.fromkeys(CUBES, "NHWC") | dict.fromkeys(("left", "right"), "NCHW")


class Mixed(Counted):
    """The lowered cubes as a file would be in which some of them are stored with the other layout."""

    turned: ClassVar[set[str]]

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        names = {b.stored.name: b.spec.name for b in (*self.artifact.inputs, *self.artifact.outputs)}
        given = {n: v.transpose(0, 2, 3, 1) if names[n] in self.turned else v for n, v in feeds.items()}
        made = super()._run(given)
        return {n: v.transpose(0, 2, 3, 1) if names[n] in self.turned else v for n, v in made.items()}


def _bind_cubes(session: type[Counted], monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Bind the file of four cubes, and return the layout of each tensor in it."""
    folder = made_once("cubes", _lower)
    random = np.random.default_rng(1)
    feeds = {name: random.random(SHAPE, dtype=np.float32) for name in CUBES}
    outputs = ("left", "right")
    path = folder / "cubes.onnx"
    with BACKENDS.load("ort").session(path, _artifact(path, "onnx", CUBES, outputs), 1) as reference:
        expected = reference.run(feeds)
    session.opened = session.runs = 0
    monkeypatch.setattr(binding, "default_backend", lambda file_format: SimpleNamespace(session=session))
    path = folder / "cubes.tflite"
    found = bind_tflite(path, _artifact(path, "tflite", CUBES, outputs), feeds, expected).artifact
    return {b.spec.name: b.stored.layout for b in (*found.inputs, *found.outputs)}


def test_four_cubes_are_told_apart_by_a_number_of_runs_that_grows_with_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _bind_cubes(Counted, monkeypatch) == STORED
    assert Counted.opened == 1
    assert Counted.runs <= 2 * len(CUBES) + 2


@pytest.mark.parametrize("number", range(64))
def test_each_cube_is_read_as_it_is_stored_however_the_others_are(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    Mixed.turned = {name for place, name in enumerate(STORED) if number >> place & 1}
    other = {"NHWC": "NCHW", "NCHW": "NHWC"}
    expected = {name: other[layout] if name in Mixed.turned else layout for name, layout in STORED.items()}
    assert _bind_cubes(Mixed, monkeypatch) == expected
    assert Mixed.opened == 1
    assert Mixed.runs <= 2 * len(CUBES) + 2


BINDING_ERROR = {
    "fp32": 1e-4, "fp16": 1e-2, "int8": 0.1, "int8-static": 0.2, "int8-w": 0.1, "int16x8": 0.2, "mixed": 0.1,
    "int8-full": 0.25, "bf16": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("precision", RECIPES)
def test_an_error_passes_just_inside_the_limit_of_its_precision_and_not_just_outside(
    cube: tuple[Path, Array, Array], precision: str
) -> None:
    path, image, expected = cube
    draft = replace(_artifact(path, "tflite"), precision=precision)

    def bind(error: float) -> None:
        # The file's outputs are `error` away, of the norm of these.
        moved = (expected / (1 + error)).astype(np.float32)
        found = bind_tflite(path, draft, {"image": image}, {"map": moved})
        assert found.error == pytest.approx(error, rel=0.02)
        check_error(path, precision, found.error)

    bind(0.95 * BINDING_ERROR[precision])
    with pytest.raises(InvalidArtifact, match=f"expected at most {BINDING_ERROR[precision]:g} for {precision}"):
        bind(1.05 * BINDING_ERROR[precision])


def test_the_layout_of_a_cube_is_the_one_that_computes_right(cube: tuple[Path, Array, Array]) -> None:
    path, image, expected = cube
    found = bind_tflite(path, _artifact(path, "tflite"), {"image": image}, {"map": expected}).artifact
    assert [binding.stored.layout for binding in (*found.inputs, *found.outputs)] == ["NHWC", "NHWC"]
    with BACKENDS.load("tflite").session(path, found, 1) as session:
        np.testing.assert_allclose(session.run({"image": image})["map"], expected, atol=1e-5)


def test_a_file_that_computes_something_else_is_bound_and_its_error_is_measured(
    cube: tuple[Path, Array, Array],
) -> None:
    path, image, expected = cube
    found = bind_tflite(path, _artifact(path, "tflite"), {"image": image}, {"map": expected * 1.01})
    assert [binding.stored.layout for binding in found.artifact.inputs] == ["NHWC"]
    assert found.error == pytest.approx(0.01 / 1.01, rel=1e-3)
    with pytest.raises(InvalidArtifact, match="differs from the float32 graph"):
        check_error(path, "fp32", found.error)


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
    path, image, expected = cube
    wrong = replace(_artifact(path, "tflite"), inputs=(Binding.same(TensorSpec(name, shape, "float32", "NCHW")),))
    with pytest.raises(InvalidArtifact, match=message):
        bind_tflite(path, wrong, {"image": image}, {"map": expected})
