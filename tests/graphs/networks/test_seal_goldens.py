"""Every Seal network reproduces the reference's outputs from the reference's own weights and names."""

import pytest
import torch

from graphs.networks.seal.detector import SealDetector
from graphs.networks.seal.embedder import SealEmbedder, blend, jnd_heatmap, luma, resize
from tests import seal_tiny

TOLERANCE = 2e-5  # float32 rounding over a few dozen layers; stated with the goldens


@pytest.mark.parametrize("name", seal_tiny.NAMES)
def test_detector_reproduces_its_golden(name: str) -> None:
    golden = seal_tiny.tensors(name)
    detector = SealDetector(seal_tiny.detector(name)).eval()
    detector.load_state_dict(seal_tiny.weights(name).states["detector"])
    with torch.no_grad():
        logits = detector(golden["inputs/image"])
    torch.testing.assert_close(logits, golden["outputs/logits"], atol=TOLERANCE, rtol=0)


def test_embedder_reproduces_every_stage_of_its_golden() -> None:
    golden = seal_tiny.tensors(seal_tiny.EMBEDDER_NAME)
    config = seal_tiny.embedder()
    embedder = SealEmbedder(config).eval()
    embedder.load_state_dict(seal_tiny.weights(seal_tiny.NAMES[0]).states["embedder"])
    image, message = golden["inputs/image"], golden["inputs/message"]
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
            got, golden[f"outputs/{stage}"], atol=TOLERANCE, rtol=0, msg=lambda m, s=stage: f"{s}: {m}"
        )
