"""One line opens a graph of any bundle and runs it, and inputs that do not fit are named."""

from pathlib import Path

import numpy as np
import pytest

import toolkit
from backends.bundle import Bundle
from backends.errors import InvalidInput, NotAvailable
from backends.registry import open_session
from tests.tiny import FOLDER

IMAGE = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
SMALL = np.random.default_rng(1).random((1, 3, 16, 16), dtype=np.float32)
MESSAGE = np.ones((1, 8), np.float32)


@pytest.mark.parametrize(
    ("backend", "precision"), [("ort", "fp32"), ("tflite", "fp32"), ("tflite", "int8"), ("tflite", "int8-static")]
)
def test_a_graph_gives_what_its_session_gives(backend: str, precision: str) -> None:
    bundle = Bundle.open(FOLDER)
    artifact = bundle.find("detector", "onnx" if backend == "ort" else backend, precision)
    with open_session(bundle, artifact, backend, threads=1) as session:
        expected = session.run({"image": IMAGE})
    with toolkit.load(FOLDER, backend, precision, role="detector") as model:
        assert [(spec.name, spec.shape) for spec in model.inputs] == [("image", IMAGE.shape)]
        assert [spec.name for spec in model.outputs] == list(expected)
        for got in (model.run(IMAGE), model.run(image=IMAGE)):
            np.testing.assert_array_equal(got["logits"], expected["logits"])


def test_inputs_are_given_in_order_by_name_or_both() -> None:
    with toolkit.load(FOLDER, role="embedder") as model:
        expected = model.run(SMALL, MESSAGE)["watermark"]
        np.testing.assert_array_equal(model.run(SMALL, message=MESSAGE)["watermark"], expected)
        np.testing.assert_array_equal(model.run(message=MESSAGE, image=SMALL)["watermark"], expected)


def test_inputs_that_do_not_fit_are_named() -> None:
    with toolkit.load(FOLDER, role="embedder") as model:
        with pytest.raises(InvalidInput, match=r"expected at most 2 inputs \(image, message\), got 3"):
            model.run(SMALL, MESSAGE, MESSAGE)
        with pytest.raises(InvalidInput, match="input 'image': given twice, by its place and by its name"):
            model.run(SMALL, image=SMALL)
        with pytest.raises(InvalidInput, match="message"):
            model.run(SMALL)


def test_a_graph_must_be_named_where_there_are_several() -> None:
    with pytest.raises(InvalidInput, match="has several graphs: give role=, one of detector, embedder"):
        toolkit.load(FOLDER)
    with pytest.raises(NotAvailable, match="decoder"):
        toolkit.load(FOLDER, role="decoder")


def test_a_name_is_searched_as_for_a_detector(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="no bundle named 'nothing'"):
        toolkit.load("nothing")
    with toolkit.load("pocketseal", role="detector") as model:
        assert model.outputs[0].name == "logits"
