"""DeepEncoder at the size of its golden."""

import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from graphs.networks.deepencoder.config import ClipConfig, DeepEncoderConfig, SamConfig

FILE = Path(__file__).parent / "golden" / "deepencoder-tiny.safetensors"
SIZES_PX = (64, 128, 192, 256)


def tensors() -> dict[str, Tensor]:
    """Everything in the golden file."""
    with safe_open(FILE, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping


def config(image_size_px: int) -> DeepEncoderConfig:
    """The sizes that the golden file itself states."""
    with safe_open(FILE, "pt") as file:
        stated = json.loads(file.metadata()["config"])
    sam, clip = stated["sam"], stated["clip"]
    return DeepEncoderConfig(
        image_size_px=image_size_px,
        sam=SamConfig(
            position_px=sam["img_size"],
            patch_size_px=16,
            dim=sam["embed_dim"],
            depth=sam["depth"],
            num_heads=sam["num_heads"],
            window_size=sam["window_size"],
            global_blocks=tuple(sam["global_attn_indexes"]),
            neck_channels=sam["neck_chans"],
            compressor_channels=(sam["net_2"], sam["net_3"]),
        ),
        clip=ClipConfig(
            position_px=clip["image_size"],
            patch_size_px=clip["patch_size"],
            dim=clip["hidden_size"],
            depth=clip["num_layers"],
            num_heads=clip["num_heads"],
            mlp_dim=clip["ffn_hidden_size"],
        ),
        tokens_dim=stated["projector"]["n_embed"],
    )


def state() -> dict[str, Tensor]:
    """The golden's weights under the names of the network; the golden has no newline and no separator."""
    everything = tensors()
    weights = {key.removeprefix("weights/"): value for key, value in everything.items() if key.startswith("weights/")}
    del weights["vision_model.embeddings.position_ids"]  # 0, 1, 2, ...
    dim = len(weights["projector.layers.bias"])
    ones = everything["inputs/image_64"].new_ones(dim)
    return {**weights, "image_newline": ones, "view_seperator": -ones}
