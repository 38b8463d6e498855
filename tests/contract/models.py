"""The bundles that the contract suite runs on: the shipped pocketseal, and each golden model made small."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.registry import SESSIONS
from graphs.checkpoint import Weights
from graphs.seal.cards import Card
from graphs.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig, ViTConfig, chunky_dims
from graphs.spec import ModelSpec, seal_spec
from toolkit.convert.pipeline import convert_bundle
from toolkit.export import export_bundle
from toolkit.weights import SHIPPED

GOLDEN = Path(__file__).parent.parent / "golden"
PHOTOGRAPHS = sorted((Path(__file__).parent.parent / "images").glob("*.jpg"))
GOLDEN_MODELS = ("chunkyseal-tiny", "videoseal-1.0-tiny", "videoseal-0.0-tiny")
POCKETSEAL = "pocketseal"

# Every file that a bundle of one model may hold, as (backend, precision, route).
VARIANTS = (
    ("torch", "fp32", None),
    ("ort", "fp32", None),
    ("ort", "int8", None),
    ("tflite", "fp32", "direct"),
    ("tflite", "fp16", "direct"),
    ("tflite", "int8", "direct"),
    ("tflite", "int8-static", "direct"),
    ("tflite", "fp32", "tf"),
    ("tflite", "fp16", "tf"),
    ("tflite", "int8", "tf"),
)


def find(bundle: Bundle, backend: str, precision: str, route: str | None) -> Artifact:
    return bundle.find("detector", SESSIONS.load(backend).FORMAT, precision, route)


def detector_config(config: dict[str, Any]) -> DetectorConfig:
    """The sizes that a golden file's own metadata states."""
    encoder = config["params"]["encoder"]
    if "embed_dim" in encoder:
        vit = ViTConfig(
            embed_dim=encoder["embed_dim"],
            depth=encoder["depth"],
            num_heads=encoder["num_heads"],
            patch_size_px=encoder["patch_size"],
            window_size=encoder["window_size"],
            global_blocks=tuple(encoder["global_attn_indexes"]),
            out_channels=encoder["out_chans"],
        )
        return DetectorConfig(config["nbits"], config["img_size"], vit)
    dims = tuple(encoder["dims"])
    if config["params"].get("proportional_dim"):
        dims = chunky_dims(dims, config["nbits"])
    convnext = ConvNeXtConfig(tuple(encoder["depths"]), dims, encoder.get("stem_stride", 4))
    return DetectorConfig(config["nbits"], config["img_size"], convnext)


def golden_bundle(name: str, folder: Path) -> Bundle:
    """Export and convert one golden model, its reference weights inside, to every precision and by both routes."""
    path = GOLDEN / f"{name}.safetensors"
    prefix = "weights/detector."
    with safe_open(path, "pt") as file:
        config = detector_config(json.loads(file.metadata()["config"]))
        keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118  no mapping
        state = {key.removeprefix(prefix): file.get_tensor(key) for key in keys}
    embedder = EmbedderConfig(config.bits, 64, 1, 4, (1, 1), 1, 8, "relu", "batch", 0.2)
    both = seal_spec(name, Card(name, config, embedder))
    detector_only = ModelSpec(name, name, both.description | {"embedder": None}, (both.graph("detector"),))
    weights = Weights("checkpoint", path.name, sha256_of(path), {"detector": state})
    export_bundle(detector_only, weights, folder)
    convert_bundle(folder, ("fp32", "fp16", "int8", "int8-static"), "direct", calibration=PHOTOGRAPHS[0].parent)
    return convert_bundle(folder, ("fp32", "fp16", "int8"), "tf")


def pocketseal_bundle(folder: Path) -> Bundle:
    """A copy of the shipped bundle, with the files of the tf route added."""
    shutil.copytree(SHIPPED / POCKETSEAL, folder)
    return convert_bundle(folder, ("fp32", "fp16", "int8"), "tf")
