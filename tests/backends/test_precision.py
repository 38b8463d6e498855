"""Recipes: each name means one thing, wherever it is said, and a runtime that cannot is told from one that can."""

import pytest

from backends.artifact import PRECISIONS
from backends.errors import NotAvailable
from backends.precision import RECIPES, Recipe, check_runs
from tests.tiny import FOLDER
from toolkit.convert.binding import LIMITS
from toolkit.models.watermark.detector import Detector


def test_every_precision_has_a_recipe_and_a_limit() -> None:
    assert tuple(RECIPES) == PRECISIONS
    assert LIMITS.keys() == RECIPES.keys()


def test_a_runtime_that_cannot_is_an_error_that_says_which_can() -> None:
    with pytest.raises(NotAvailable, match=r"^ONNX Runtime cannot run int16x8: it has no kernels .*; TFLite can$"):
        Detector.open(FOLDER, "ort", "int16x8")
    with pytest.raises(NotAvailable, match=r"^PyTorch cannot run int8; ONNX Runtime and TFLite can$"):
        Detector.open(FOLDER, "torch", "int8")
    check_runs("int16x8", "tflite")
    with pytest.raises(NotAvailable, match="no detector tflite int16x8; there is"):
        Detector.open(FOLDER, "tflite", "int16x8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": "int4"}, "weights: expected one of float32, float16, int8"),
        ({"activations": "int4"}, "activations: expected one of"),
        ({"computes": ("softmax",)}, "computes: expected one of dense, convolution"),
        ({"formats": ("coreml",)}, "formats: expected one of onnx, tflite, torch"),
        ({"computes": ()}, "activations are quantized for the operators"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused(change: dict[str, object], says: str) -> None:
    fields = {"name": "x", "weights": "int8", "activations": "int8", "computes": ("dense",), "formats": ("tflite",)}
    with pytest.raises(ValueError, match=says):
        Recipe(**(fields | change))  # type: ignore[arg-type]
