"""The Seal networks at the size of the goldens, as models that can be exported and converted."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from graphs.checkpoint import Weights
from graphs.seal.cards import Card
from graphs.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig, ViTConfig, chunky_dims
from graphs.spec import ModelSpec, seal_spec

GOLDEN = Path(__file__).parent / "golden"

EMBEDDER = EmbedderConfig(
    bits=32,
    image_size_px=64,
    channels=1,
    z_channels=4,
    z_channels_mults=(1, 2, 4),
    num_blocks=2,
    message_dim=32,
    activation="relu",
    normalization="batch",
    scaling_w=0.2,
)
DETECTORS = {
    "chunkyseal-tiny": DetectorConfig(
        64, 64, ConvNeXtConfig((1, 1, 2, 1), chunky_dims((8, 16, 24, 32), 64), stem_stride=2)
    ),
    "videoseal-1.0-tiny": DetectorConfig(32, 64, ConvNeXtConfig((1, 1, 2, 1), (8, 16, 24, 32))),
    "videoseal-0.0-tiny": DetectorConfig(16, 64, ViTConfig(24, 3, 3, 8, 3, (1,), 24)),
}


def tensors(name: str) -> dict[str, Tensor]:
    """Everything in a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping


def spec(name: str) -> ModelSpec:
    """A model with the detector of a golden, and the tiny embedder."""
    return seal_spec(name, Card(name, DETECTORS[name], EMBEDDER))


def weights(name: str) -> Weights:
    """The golden weights of that detector, and those of the tiny embedder."""
    states = {
        role: {
            key.removeprefix(f"weights/{role}."): value
            for key, value in tensors(file).items()
            if key.startswith(f"weights/{role}.")
        }
        for role, file in (("detector", name), ("embedder", "videoseal-embedder-tiny"))
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
