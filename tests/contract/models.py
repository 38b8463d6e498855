"""The bundles that the contract suite runs on: the shipped pocketseal, and each golden model made small."""

import shutil
from pathlib import Path

import pytest

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import find_artifact
from graphs.onnx.file import load
from graphs.tflite.stitch import layer_names
from tests import seal_tiny
from tests.shared import made_once
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.quantize.layers import layers
from toolkit.convert.quantize.mixed import MixedRecipe, MixedRequest
from toolkit.export import SHIPPED
from toolkit.parity.agreement import conversion_rules

PHOTOGRAPHS = sorted(seal_tiny.IMAGES.glob("*.jpg"))
GOLDEN_MODELS = seal_tiny.NAMES
POCKETSEAL = "pocketseal"
Variant = tuple[str, str, str | None]  # backend, precision, route

# Every file that a bundle of one model may hold, as (backend, precision, route).
VARIANTS = (
    ("torch", "fp32", None),
    ("ort", "fp32", None),
    ("ort", "fp16", None),
    ("ort", "int8", None),
    ("ort", "int8-static", None),
    ("ort", "int8-w", None),
    ("ort", "mixed", None),
    ("tflite", "fp32", "direct"),
    ("tflite", "fp16", "direct"),
    ("tflite", "int8", "direct"),
    ("tflite", "int8-static", "direct"),
    ("tflite", "int8-w", "direct"),
    ("tflite", "int16x8", "direct"),
    ("tflite", "mixed", "direct"),
    ("tflite", "fp32", "tf"),
    ("tflite", "fp16", "tf"),
    ("tflite", "int8", "tf"),
)


PRECISIONS = (*seal_tiny.PRECISIONS, "mixed")
# What is asked of the golden models. Their files of the other precisions are compared in tests/convert.
GOLDEN_PRECISIONS = ("fp32", "fp16", "int8", "int8-static")


def holds(model: str, precision: str) -> bool:
    """Whether the bundle of a model has files of this precision."""
    return model == POCKETSEAL or precision in GOLDEN_PRECISIONS


def find(bundle: Bundle, backend: str, precision: str, route: str | None) -> Artifact:
    return find_artifact(bundle, "detector", backend, precision, route)


def marks(model: str, variant: Variant) -> tuple[pytest.MarkDecorator, ...]:
    """The tf route takes half a minute a model: one model goes that way among the fast tests."""
    is_slow = variant[2] == "tf" and model != "videoseal-1.0-tiny"
    return (pytest.mark.large,) if is_slow else ()


def bundle_of(model: str, variant: Variant) -> Bundle:
    """A bundle of a model that holds a variant and the float32 files, made once a test run."""
    if model == POCKETSEAL:
        name, make = ("converted", _pocketseal) if variant[2] != "tf" else ("both-routes", _pocketseal_by_both_routes)
        return Bundle.open(made_once(f"{name}-{POCKETSEAL}", make) / POCKETSEAL)
    return (seal_tiny.converted_by_both_routes if variant[2] == "tf" else seal_tiny.converted)(model)


def _pocketseal(parent: Path) -> None:
    folder = parent / POCKETSEAL
    shutil.copytree(SHIPPED / POCKETSEAL, folder)
    found = layers(load(folder / "detector.onnx").graph)
    kept = MixedRecipe((found[0].name, found[-1].name), layer_names(folder / "detector.int8.tflite")[-2:], "")
    convert_bundle(
        folder,
        conversion_rules,
        PRECISIONS,
        calibration=Calibration(seal_tiny.IMAGES),
        mixed=MixedRequest(kept=kept),
        strict=True,
    )


def _pocketseal_by_both_routes(parent: Path) -> None:
    shutil.copytree(bundle_of(POCKETSEAL, ("ort", "fp32", None)).folder, parent / POCKETSEAL)
    convert_bundle(parent / POCKETSEAL, conversion_rules, seal_tiny.TF_PRECISIONS, "tf", strict=True)
