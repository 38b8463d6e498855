"""Recipes: each name means one thing, wherever it is said, and a runtime that cannot is told from one that can."""

import pytest

from backends.errors import NotAvailable
from backends.precision import RECIPES, check_runs, find_recipe
from backends.recipe import Recipe
from tests.tiny import FOLDER
from toolkit.models.watermark.detector import Detector


def test_the_precisions_stand_in_the_order_of_their_ranks() -> None:
    assert tuple(RECIPES) == ("fp32", "fp16", "int8", "int8-static", "int8-w", "int16x8", "mixed", "int8-full", "bf16")
    assert [name for name, recipe in RECIPES.items() if "tf" in recipe.routes] == ["fp32", "fp16", "int8"]


def test_no_two_precisions_have_the_same_rank() -> None:
    ranks = [recipe.rank for recipe in RECIPES.values()]
    assert ranks == list(range(len(RECIPES)))


def test_a_stored_weight_has_a_half_or_a_quarter_of_the_size() -> None:
    shares = {recipe.weights: recipe.share for recipe in RECIPES.values()}
    assert shares == {"float32": 1.0, "float16": 0.5, "int8": 0.25}


def test_a_file_far_enough_to_have_a_wrong_layout_is_bound_in_no_precision() -> None:
    # A wrong layout gave 0.26 of the outputs' size at the least; these limits tell it from rounding.
    limits = {name: recipe.limit("binding_error") for name, recipe in RECIPES.items()}
    assert limits == {
        "fp32": 1e-4, "fp16": 1e-2, "int8": 0.1, "int8-static": 0.2, "int8-w": 0.1, "int16x8": 0.2, "mixed": 0.1,
        "int8-full": 0.25, "bf16": 0.1,
    }  # fmt: skip


def test_a_limit_that_is_not_stated_has_no_default() -> None:
    with pytest.raises(NotAvailable, match="precision 'mixed' states no limit for 'lost', so nothing is judged by it"):
        RECIPES["mixed"].limit("lost")


def test_an_unknown_precision_is_an_error_that_lists_them() -> None:
    with pytest.raises(NotAvailable, match="no precision named 'int4'; there is fp32, fp16, int8, int8-static"):
        find_recipe("int4")


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
        ({"computes": ("softmax",)}, "computes: expected one of dense, convolution, other"),
        ({"formats": ("coreml",)}, "formats: expected one of onnx, tflite, torch"),
        ({"computes": ()}, "activations are quantized for the operators"),
        ({"routes": ()}, "x: a precision has routes that make its files, or the base whose files it runs"),
        ({"base": "fp32"}, "x: a precision has routes that make its files, or the base whose files it runs"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused(change: dict[str, object], says: str) -> None:
    fields = {
        "name": "x",
        "weights": "int8",
        "activations": "int8",
        "computes": ("dense",),
        "formats": ("tflite",),
        "limits": {},
        "reason": "none",
    }
    with pytest.raises(ValueError, match=says):
        Recipe(**(fields | change))  # type: ignore[arg-type]


# Measure -> its limit for fp32, fp16, int8, int8-static, int8-w, int16x8, mixed, int8-full and bf16.
LIMITS = {
    "accuracy_loss": (0.0001, 0.0002, 0.001, 0.002, 0.001, 0.001, 0.001, 0.005, 0.001),
    "binding_error": (0.0001, 0.01, 0.1, 0.2, 0.1, 0.2, 0.1, 0.25, 0.1),
    "bits_flipped": (0.0001, 0.001, 0.01, 0.02, 0.005, 0.005, 0.002, 0.05, 0.005),
    "captions_changed": (0.0, 0.2, 0.65, 0.9, 0.4, 0.4, None, 0.95, 0.4),
    "changed": (0.0, 0.01, 0.05, 0.1, 0.025, 0.025, 0.025, 0.15, 0.025),
    "channel_changed": (0.0001, 0.001, 0.005, 0.01, 0.005, 0.005, 0.002, 0.02, 0.005),
    "choices_changed": (0.0, 0.01, 0.05, 0.1, 0.025, 0.025, None, 0.15, 0.025),
    "latent_error": (0.001, 0.01, 0.2, 0.4, 0.1, 0.1, None, 0.5, 0.1),
    "layer_error": (None, None, 0.02, 0.04, 0.01, 0.01, None, 0.05, 0.01),
    "lost": (0.0, 0.001, 0.01, 0.04, 0.005, 0.005, None, 0.06, 0.005),
    "mean_cosine": (0.999999, 0.9999, 0.995, 0.98, 0.998, 0.998, None, 0.97, 0.998),
    "psnr_db": (80.0, 50.0, 30.0, 24.0, 36.0, 36.0, None, 22.0, 36.0),
    "relative_l2": (0.0001, 0.01, 0.1, 0.2, 0.05, 0.05, 0.05, 0.25, 0.05),
    "verdicts_changed": (0.0, 0.0, 0.002, 0.005, 0.002, 0.002, 0.0, 0.01, 0.002),
}


@pytest.mark.parametrize("measure", LIMITS)
def test_each_measure_has_these_limits(measure: str) -> None:
    assert tuple(recipe.limits.get(measure) for recipe in RECIPES.values()) == LIMITS[measure]


def test_no_recipe_limits_another_measure() -> None:
    assert {measure for recipe in RECIPES.values() for measure in recipe.limits} == set(LIMITS)
