"""The Seal networks at the size of the goldens, as models that can be exported and converted."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from backends.bundle import Bundle
from graphs.checkpoint import Weights
from graphs.networks.seal.cards import Card, seal_spec
from graphs.networks.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig, ViTConfig, chunky_dims
from graphs.networks.spec import ModelSpec
from tests.shared import made_once
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.export import export_bundle
from toolkit.parity.agreement import conversion_rules

GOLDEN = Path(__file__).parent / "golden"
IMAGES = Path(__file__).parent / "images"
# What the direct route makes of a model without being asked for a mixture; ONNX Runtime has all but int16x8.
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int8-w", "int16x8")
TF_PRECISIONS = ("fp32", "fp16", "int8")

NAMES = ("chunkyseal-tiny", "videoseal-1.0-tiny", "videoseal-0.0-tiny")


EMBEDDER_NAME = "videoseal-embedder-tiny"


def _metadata(name: str) -> dict[str, Any]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
    return config


def detector(name: str) -> DetectorConfig:
    """The sizes that the golden file itself states, under the names of the published configuration."""
    config = _metadata(name)
    sizes = config["params"]["encoder"]
    encoder: ConvNeXtConfig | ViTConfig
    if "embed_dim" in sizes:
        encoder = ViTConfig(
            embed_dim=sizes["embed_dim"],
            depth=sizes["depth"],
            num_heads=sizes["num_heads"],
            patch_size_px=sizes["patch_size"],
            window_size=sizes["window_size"],
            global_blocks=tuple(sizes["global_attn_indexes"]),
            out_channels=sizes["out_chans"],
        )
    else:
        a, b, c, d = sizes["dims"]
        dims = chunky_dims((a, b, c, d), config["nbits"]) if config["params"].get("proportional_dim") else (a, b, c, d)
        encoder = ConvNeXtConfig(tuple(sizes["depths"]), dims, sizes.get("stem_stride", 4))
    return DetectorConfig(config["nbits"], config["img_size"], encoder)


def embedder() -> EmbedderConfig:
    """The sizes that the embedder's golden file states."""
    config = _metadata(EMBEDDER_NAME)
    unet = config["unet"]
    return EmbedderConfig(
        bits=config["nbits"],
        image_size_px=config["img_size"],
        channels=unet["in_channels"],
        z_channels=unet["z_channels"],
        z_channels_mults=tuple(unet["z_channels_mults"]),
        num_blocks=unet["num_blocks"],
        message_dim=config["msg_processor"]["hidden_size"],
        activation=unet["activation"],
        normalization=unet["normalization"],
        scaling_w=config["scaling_w"],
        scaling_i=config["scaling_i"],
    )


def tensors(name: str) -> dict[str, Tensor]:
    """Everything in a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping


def spec(name: str) -> ModelSpec:
    """A model with the detector of a golden, and the tiny embedder."""
    return seal_spec(name, Card(name, detector(name), embedder()))


def weights(name: str) -> Weights:
    """The golden weights of that detector, and those of the tiny embedder."""
    states = {
        role: {
            key.removeprefix(f"weights/{role}."): value
            for key, value in tensors(file).items()
            if key.startswith(f"weights/{role}.")
        }
        for role, file in (("detector", name), ("embedder", EMBEDDER_NAME))
    }
    return Weights("random", "golden", "0" * 64, states)


def exported(name: str) -> Bundle:
    """The bundle that an export makes of a model, exported once a test run. Not to be changed."""

    def make(folder: Path) -> None:
        export_bundle(spec(name), weights(name), folder / name)

    return Bundle.open(made_once(f"exported-{name}", make) / name)


def converted(name: str) -> Bundle:
    """That bundle with the files of every precision, made once a test run. Not to be changed."""

    def make(folder: Path) -> None:
        shutil.copytree(exported(name).folder, folder / name)
        convert_bundle(folder / name, conversion_rules, PRECISIONS, calibration=Calibration(IMAGES), strict=True)

    return Bundle.open(made_once(f"converted-{name}", make) / name)


def converted_by_both_routes(name: str) -> Bundle:
    """That bundle with the files of the tf route as well, which take four times as long. Not to be changed."""

    def make(folder: Path) -> None:
        shutil.copytree(converted(name).folder, folder / name)
        convert_bundle(folder / name, conversion_rules, TF_PRECISIONS, route="tf", strict=True)

    return Bundle.open(made_once(f"converted-by-both-routes-{name}", make) / name)


def checkpoint(name: str) -> dict[str, Tensor]:
    """The same weights under the names that a published file gives them."""
    return {f"{role}.{key}": value for role, state in weights(name).states.items() for key, value in state.items()}


def flipped_bits(got: Tensor, expected: Tensor, margin: float = 1e-3) -> int:
    """How many logits changed sign among those that are further from zero than `margin`."""
    clear = expected.abs() > margin
    assert clear.any()
    return int(torch.count_nonzero((got > 0)[clear] != (expected > 0)[clear]))
