"""Calibration of imported models: on real inputs of any kind, and on images that are made as the bundle says."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.tensor import Array
from tests.foreign_graphs import square_root
from toolkit.convert.calibration import MOST_RUNS, Calibration, read_calibration
from toolkit.import_model import import_model
from toolkit.inputs.images import Preprocess
from toolkit.parity.agreement import conversion_rules


def _read(bundle: Bundle, calibration: Calibration) -> Array:
    """The values of the model's only input, (runs, *shape)."""
    with ExitStack() as files:

        def file() -> BinaryIO:
            return cast(BinaryIO, files.enter_context(tempfile.TemporaryFile()))

        graph = bundle.artifacts[0]
        read = read_calibration(calibration, conversion_rules(bundle).feeds, bundle, graph, file)
        return np.array(read.inputs[graph.inputs[0].spec.name])


def _picture(folder: Path) -> Bundle:
    """A model of grey pictures that are 14 wide and 10 high, with the channel last."""
    path = folder / "source.onnx"
    text = (
        '<ir_version: 10, opset_import: ["": 18]> g (float[1,10,14,1] image) => (float[1,10,14,1] y) { y = Exp(image) }'
    )
    onnx.save(onnx.parser.parse_model(text), path)
    return import_model(path, folder / "picture", {}, preprocess=Preprocess(mean=(0.5,), std=(0.25,)))


def test_photographs_are_preprocessed_as_the_bundle_says(tmp_path: Path) -> None:
    bundle = _picture(tmp_path)
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (30, 20), (51, 51, 51)).save(tmp_path / "photographs" / "0.png")
    values = _read(bundle, Calibration(tmp_path / "photographs"))
    assert values.shape == (1, 1, 10, 14, 1)
    np.testing.assert_allclose(values, (0.2 - 0.5) / 0.25, atol=1e-5)


def test_generated_images_have_detail_where_channels_are_last(tmp_path: Path) -> None:
    """Images as wide as there are channels, one pixel, would be flat."""
    values = _read(_picture(tmp_path), Calibration(None))
    assert values.shape == (64, 1, 10, 14, 1)
    assert values.min() >= -2
    assert values.max() <= 2
    assert np.median(values.std(axis=(1, 2, 3, 4))) > 0.1


def test_real_inputs_are_taken_evenly_up_to_the_most_runs(tmp_path: Path) -> None:
    rows = np.repeat(np.arange(1000, dtype=np.float32)[:, None], 8, axis=1)
    np.savez(tmp_path / "given.npz", x=rows)
    bundle = import_model(square_root(tmp_path), tmp_path / "root", {}, inputs=tmp_path / "given.npz")
    values = _read(bundle, Calibration(None, of_inputs=True))
    assert values.shape == (MOST_RUNS, 1, 8)
    assert (values[0, 0, 0], values[-1, 0, 0]) == (0, 999)
    assert np.abs(np.diff(values[:, 0, 0]) - 999 / (MOST_RUNS - 1)).max() <= 1


def test_without_real_inputs_there_is_nothing_to_calibrate_with(tmp_path: Path) -> None:
    bundle = import_model(square_root(tmp_path), tmp_path / "root", {})
    with pytest.raises(InvalidInput, match=r"root: no real inputs to calibrate with: .*--inputs FILE\.npz\|DIR"):
        _read(bundle, Calibration(None, of_inputs=True))
