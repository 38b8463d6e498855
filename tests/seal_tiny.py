"""The Seal networks at the size of the goldens, as models that can be exported and converted."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from graphs.checkpoint import Weights
from graphs.networks.seal.cards import Card, seal_spec
from graphs.networks.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig, ViTConfig, chunky_dims
from graphs.networks.spec import ModelSpec

GOLDEN = Path(__file__).parent / "golden"

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


def checkpoint(name: str) -> dict[str, Tensor]:
    """The same weights under the names that a published file gives them."""
    return {f"{role}.{key}": value for role, state in weights(name).states.items() for key, value in state.items()}


def flipped_bits(got: Tensor, expected: Tensor, margin: float = 1e-3) -> int:
    """How many logits changed sign among those that are further from zero than `margin`."""
    clear = expected.abs() > margin
    assert clear.any()
    return int(torch.count_nonzero((got > 0)[clear] != (expected > 0)[clear]))
