"""Every Seal network reproduces the reference's outputs from the reference's own weights and names."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from graphs.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig, ViTConfig, chunky_dims
from graphs.seal.detector import SealDetector
from graphs.seal.embedder import SealEmbedder, blend, jnd_heatmap, luma, resize

GOLDEN = Path(__file__).parent.parent / "golden"
TOLERANCE = 2e-5  # float32 rounding over a few dozen layers; stated with the goldens


class Golden:
    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
            self.config = json.loads(file.metadata()["config"])

    def weights(self, prefix: str) -> dict[str, Tensor]:
        start = f"weights/{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def _detector_config(name: str, config: dict) -> DetectorConfig:
    encoder = config["params"]["encoder"]
    if name.startswith("videoseal-0.0"):
        vit = ViTConfig(
            encoder["embed_dim"],
            encoder["depth"],
            encoder["num_heads"],
            encoder["patch_size"],
            encoder["window_size"],
            tuple(encoder["global_attn_indexes"]),
            encoder["out_chans"],
        )
        return DetectorConfig(config["nbits"], config["img_size"], vit)
    dims = tuple(encoder["dims"])
    if config["params"].get("proportional_dim"):
        dims = chunky_dims(dims, config["nbits"])
    convnext = ConvNeXtConfig(tuple(encoder["depths"]), dims, encoder.get("stem_stride", 4))
    return DetectorConfig(config["nbits"], config["img_size"], convnext)


@pytest.mark.parametrize("name", ["chunkyseal-tiny", "videoseal-1.0-tiny", "videoseal-0.0-tiny"])
def test_detector_reproduces_its_golden(name: str) -> None:
    golden = Golden(name)
    detector = SealDetector(_detector_config(name, golden.config)).eval()
    detector.load_state_dict(golden.weights("detector"))
    with torch.no_grad():
        logits = detector(golden.tensors["inputs/image"])
    torch.testing.assert_close(logits, golden.tensors["outputs/logits"], atol=TOLERANCE, rtol=0)


def test_embedder_reproduces_every_stage_of_its_golden() -> None:
    golden = Golden("videoseal-embedder-tiny")
    unet = golden.config["unet"]
    config = EmbedderConfig(
        bits=golden.config["nbits"],
        image_size_px=golden.config["img_size"],
        channels=unet["in_channels"],
        z_channels=unet["z_channels"],
        z_channels_mults=tuple(unet["z_channels_mults"]),
        num_blocks=unet["num_blocks"],
        message_dim=golden.config["msg_processor"]["hidden_size"],
        activation=unet["activation"],
        normalization=unet["normalization"],
        scaling_w=golden.config["scaling_w"],
        scaling_i=golden.config["scaling_i"],
    )
    embedder = SealEmbedder(config).eval()
    embedder.load_state_dict(golden.weights("embedder"))
    image, message = golden.tensors["inputs/image"], golden.tensors["inputs/message"]
    size = config.image_size_px
    with torch.no_grad():
        resized = resize(image, size, size)
        watermark = embedder(resized, message)
        stages = {
            "resized": resized,
            "luma": luma(resized),
            "watermark": watermark,
            "jnd_heatmap": jnd_heatmap(image),
            "image_watermarked": blend(image, watermark, config),
        }
    for stage, got in stages.items():
        torch.testing.assert_close(
            got, golden.tensors[f"outputs/{stage}"], atol=TOLERANCE, rtol=0, msg=lambda m, s=stage: f"{s}: {m}"
        )
