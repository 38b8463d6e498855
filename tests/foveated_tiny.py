"""The goldens of the foveated VLM's two published networks, and the whole of it at their size."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from graphs.networks.foveated.config import DinoConfig, FilmConfig, FoveatedConfig, LlamaConfig

_GOLDEN = Path(__file__).parent / "golden"
DINO, LANGUAGE = "dinov3-tiny", "smollm2-tiny"


def tensors(name: str) -> dict[str, Tensor]:
    """Everything in a golden file."""
    with safe_open(_GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping


def state(name: str) -> dict[str, Tensor]:
    """The weights of a golden under the published names."""
    return {key.removeprefix("weights/"): value for key, value in tensors(name).items() if key.startswith("weights/")}


def _stated(name: str) -> dict[str, Any]:
    with safe_open(_GOLDEN / f"{name}.safetensors", "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
    return config


def dino() -> DinoConfig:
    """The sizes that the golden file itself states."""
    stated = _stated(DINO)
    return DinoConfig(
        image_size_px=stated["image_size"],
        patch_size_px=stated["patch_size"],
        dim=stated["hidden_size"],
        depth=stated["num_hidden_layers"],
        num_heads=stated["num_attention_heads"],
        mlp_dim=stated["intermediate_size"],
        num_registers=stated["num_register_tokens"],
        rope_theta=stated["rope_theta"],
    )


def language() -> LlamaConfig:
    """The sizes that the golden file itself states."""
    stated = _stated(LANGUAGE)
    return LlamaConfig(
        vocabulary=stated["vocab_size"],
        dim=stated["hidden_size"],
        mlp_dim=stated["intermediate_size"],
        depth=stated["num_hidden_layers"],
        num_heads=stated["num_attention_heads"],
        num_kv_heads=stated["num_key_value_heads"],
        rope_theta=stated["rope_theta"],
    )


def config() -> FoveatedConfig:
    """The two-pass model around the two golden networks."""
    return FoveatedConfig(
        dino=dino(),
        language=language(),
        head=FilmConfig(16, (8, 8, 12)),
        latent_channels=4,
        latent_side=8,
        sequence_length=8,
        frames=3,
    )
