"""The bundles that the contract suite runs on: the shipped pocketseal, and each golden model made small."""

import shutil
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import find_artifact
from graphs.checkpoint import Weights
from graphs.networks.spec import ModelSpec
from graphs.onnx.file import load
from graphs.tflite.stitch import layer_names
from tests import seal_tiny
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.quantize.layers import layers
from toolkit.convert.quantize.mixed import MixedRecipe, MixedRequest
from toolkit.export import SHIPPED, export_bundle
from toolkit.parity.agreement import conversion_rules

PHOTOGRAPHS = sorted((Path(__file__).parent.parent / "images").glob("*.jpg"))
GOLDEN_MODELS = seal_tiny.NAMES
POCKETSEAL = "pocketseal"

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


PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int8-w", "int16x8", "mixed")
# What the golden models have of them. Their files of the other precisions are compared in tests/convert.
GOLDEN_PRECISIONS = ("fp32", "fp16", "int8", "int8-static")


def holds(model: str, precision: str) -> bool:
    """Whether the bundle of a model has files of this precision."""
    return model == POCKETSEAL or precision in GOLDEN_PRECISIONS


def find(bundle: Bundle, backend: str, precision: str, route: str | None) -> Artifact:
    return find_artifact(bundle, "detector", backend, precision, route)


def golden_bundle(name: str, folder: Path) -> Bundle:
    """Export and convert one golden model, its reference weights inside, to every precision and by both routes."""
    both = seal_tiny.spec(name)
    detector_only = ModelSpec(name, name, both.description | {"embedder": None}, (both.graph("detector"),))
    weights = seal_tiny.weights(name)
    state = {"detector": weights.states["detector"]}
    export_bundle(detector_only, Weights("checkpoint", weights.source, weights.sha256, state), folder)
    convert_bundle(
        folder, conversion_rules, GOLDEN_PRECISIONS, "direct", calibration=Calibration(PHOTOGRAPHS[0].parent)
    )
    return convert_bundle(folder, conversion_rules, ("fp32", "fp16", "int8"), "tf")


def pocketseal_bundle(folder: Path) -> Bundle:
    """A copy of the shipped bundle, with every precision, and the files of the tf route, added."""
    shutil.copytree(SHIPPED / POCKETSEAL, folder)
    found = layers(load(folder / "detector.onnx").graph)
    kept = MixedRecipe((found[0].name, found[-1].name), layer_names(folder / "detector.int8.tflite")[-2:], "")
    convert_bundle(
        folder,
        conversion_rules,
        PRECISIONS,
        calibration=Calibration(PHOTOGRAPHS[0].parent),
        mixed=MixedRequest(kept=kept),
    )
    return convert_bundle(folder, conversion_rules, ("fp32", "fp16", "int8"), "tf")
