"""What the manifest of an imported model keeps about its inputs."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.bundle import Bundle, WeightsOrigin
from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import IntegerValues, TensorSpec
from tests.foreign_graphs import square_root
from toolkit.import_model import import_model
from toolkit.inputs.images import Preprocess
from toolkit.inputs.kept import KeptInputs, advisory, first_inputs, moved_model, real_inputs, with_inputs


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    np.savez(tmp_path / "given.npz", x=np.arange(16, dtype=np.float32).reshape(2, 8))
    (tmp_path / "source").mkdir()
    return import_model(square_root(tmp_path / "source"), tmp_path / "root", {}, inputs=tmp_path / "given.npz")


def _specs(bundle: Bundle) -> list[TensorSpec]:
    return [binding.spec for binding in bundle.artifacts[0].inputs]


def test_the_place_of_the_inputs_moves_with_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.model["inputs"] == {"path": "../given.npz"}
    assert str(tmp_path) not in (bundle.folder / "bundle.json").read_text()
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "given.npz", tmp_path / "elsewhere")
    shutil.move(bundle.folder, tmp_path / "elsewhere")
    moved = Bundle.open(tmp_path / "elsewhere" / "root")
    inputs = real_inputs(moved, _specs(moved))
    assert inputs is not None
    assert [float(sample.feeds["x"][0, 0]) for sample in inputs] == [0, 8]
    assert advisory(moved) is None


def test_inputs_that_are_gone_make_the_verdict_advisory(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "given.npz").unlink()
    assert real_inputs(bundle, _specs(bundle)) is None
    assert f"the real inputs are gone: there is no {tmp_path / 'given.npz'}" in str(advisory(bundle))
    assert first_inputs(bundle, _specs(bundle))["x"].max() < 1


def test_other_inputs_take_the_place_of_those_that_are_kept(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.full((1, 8), 5, np.float32))
    other = with_inputs(bundle, tmp_path / "other.npz", Preprocess(mean=(1,)))
    assert other.model["inputs"] == {"path": "../other.npz", "preprocess": {"mean": [1]}}
    assert (first_inputs(other, _specs(other))["x"] == 5).all()
    assert with_inputs(other, None, Preprocess()).model["inputs"] == {"path": "../other.npz", "preprocess": {}}
    assert with_inputs(bundle, None, None) is bundle
    assert Bundle.open(bundle.folder).model == bundle.model


def test_inputs_that_do_not_fit_are_refused_at_once(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", x=np.zeros((1, 9), np.float32))
    with pytest.raises(InvalidInput, match=r"wrong\.npz: input 'x': expected float32 \[samples, 8\]"):
        with_inputs(bundle, tmp_path / "wrong.npz", None)


def test_a_bundle_elsewhere_finds_the_same_inputs(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    model = moved_model(bundle, folder)
    assert model["inputs"]["path"] == "../../given.npz"
    assert advisory(replace(bundle, folder=folder, model=model)) is None
    plain = replace(bundle, model={"name": "a", "kind": "tensor"})
    assert moved_model(plain, folder) is plain.model


def test_what_is_written_is_read_again() -> None:
    kept = KeptInputs(
        "../a", Preprocess((8, 12), 255.0, (1.0, 2.0, 3.0), (4.0,), "NHWC", "BGR", True, 16000, "bicubic", 0.875),
        {"ids": IntegerValues(30, distinct=1), "mask": IntegerValues(mask=True)},
    )  # fmt: skip
    written = json.loads(json.dumps(kept.to_json()))
    assert written["integers"] == {"ids": {"below": 30, "distinct": 1}, "mask": {"mask": True}}
    bundle = Bundle(Path("here"), {"name": "a", "kind": "tensor", "inputs": written}, _WEIGHTS, ())
    assert KeptInputs.of(bundle) == kept
    assert KeptInputs.of(replace(bundle, model={"name": "a", "kind": "tensor"})) == KeptInputs()


_WEIGHTS = WeightsOrigin("checkpoint", "0" * 64, "a.onnx")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"path": 3}, "Expected `str | null`, got `int`"),
        ({"preprocess": {"layout": "CHW"}}, "Invalid enum value 'CHW'"),
        ({"preprocess": {"std": [0.0]}}, "expected numbers other than 0"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_a_manifest_that_holds_something_else_is_refused(held: object, message: str) -> None:
    bundle = Bundle(Path("here"), {"name": "a", "kind": "tensor", "inputs": held}, _WEIGHTS, ())
    with pytest.raises(InvalidArtifact, match=rf"here/bundle\.json: model\.inputs: .*{re.escape(message)}"):
        KeptInputs.of(bundle)
