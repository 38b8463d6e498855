"""ONNX weights kept beside their file: they run, count in the hash, and may not lie elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact
from backends.registry import open_session
from tests.tiny import DETECTOR_PX
from toolkit.cli import main

IMAGE = np.random.default_rng(0).random((1, 3, DETECTOR_PX, DETECTOR_PX), dtype=np.float32)


def split(bundle: Bundle, location: str = "detector.onnx.data", listed: bool = True) -> Bundle:
    """The bundle with the detector's weights moved to a file of their own."""
    path = bundle.folder / "detector.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="detector.onnx.data", size_threshold=64)
    if location != "detector.onnx.data":
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(model.SerializeToString())
    data = bundle.folder / "detector.onnx.data"
    files = [path, data] if listed else [path]
    artifact = replace(
        bundle.find("detector", "onnx", "fp32"),
        external_files=tuple(file.name for file in files[1:]),
        sha256=sha256_of(*files),
        bytes=sum(file.stat().st_size for file in files),
    )
    return bundle.with_artifact(artifact)


def run(bundle: Bundle) -> np.ndarray:
    with open_session(bundle, bundle.find("detector", "onnx", "fp32"), "ort", 1) as session:
        return session.run({"image": IMAGE})["logits"]


def test_weights_in_a_file_of_their_own_give_the_same_logits(tiny: Bundle) -> None:
    expected = run(tiny)
    moved = split(tiny)
    moved.write()
    assert (tiny.folder / "detector.onnx.data").stat().st_size > 0
    np.testing.assert_array_equal(run(Bundle.open(tiny.folder)), expected)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.unlink(),
        lambda data: data.write_bytes(b""),
        lambda data: data.write_bytes(data.read_bytes()[:-1]),
        lambda data: data.write_bytes(data.read_bytes()[:-1] + b"\x7f"),
    ],
)
def test_damaged_external_data_is_refused(tiny: Bundle, damage: Callable[[Path], object]) -> None:
    moved = split(tiny)
    damage(tiny.folder / "detector.onnx.data")
    with pytest.raises(InvalidArtifact, match=r"detector\.onnx"):
        run(moved)


@pytest.mark.parametrize("location", ["../outside.data", "gone.data", "link.data"])
def test_weights_outside_the_bundle_are_refused(tiny: Bundle, location: str) -> None:
    moved = split(tiny, location, listed=False)
    outside = tiny.folder.parent / "outside.data"
    (tiny.folder / "detector.onnx.data").rename(outside)
    (tiny.folder / "link.data").symlink_to(outside)
    with pytest.raises(InvalidArtifact, match="ONNX Runtime cannot load it"):
        run(moved)


def test_weights_whose_file_has_a_second_name_are_refused_before_the_work(tiny: Bundle) -> None:
    split(tiny).write()
    (tiny.folder / "backup").hardlink_to(tiny.folder / "detector.onnx.data")
    for command in (["convert", "-p", "fp32"], ["bisect", "--candidate", "detector.fp32.tflite"]):
        result = CliRunner().invoke(main, [command[0], str(tiny.folder), *command[1:]])
        assert result.exit_code == 2, result.output
        assert "detector.onnx: the file of its weights has several names (hard links)" in result.output
    # Running it reads nothing but what the manifest lists.
    assert run(Bundle.open(tiny.folder)).shape
