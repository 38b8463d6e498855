"""Sizes of the captioner. Importing this imports neither torch nor onnx.

Source: the published layer list. Where a published total disagrees with the list, the list counts: the image decoder of
the large variant has 540 million parameters, nearly all of them in its first Linear.
"""

from dataclasses import dataclass

# Token ids that every vocabulary keeps free.
PADDING, BEGIN, END = 0, 1, 2


@dataclass(frozen=True)
class CaptionerConfig:
    """All four networks.

    channels: of the encoder's four convolutions, each halving the image an axis; the decoder has them in reverse.
    max_tokens: the longest text, its begin token included.
    """

    image_size_px: int
    channels: tuple[int, int, int, int]
    latent: int
    embedding: int
    vocabulary: int
    depth: int
    num_heads: int
    max_tokens: int

    def __post_init__(self) -> None:
        if self.embedding % self.num_heads or self.embedding % 2:
            raise ValueError(f"embedding {self.embedding} is not a multiple of num_heads {self.num_heads} and of 2")
        if self.image_size_px % 16:
            raise ValueError(f"image_size_px {self.image_size_px} is not a multiple of 16")
        if self.vocabulary <= END:
            raise ValueError(f"vocabulary {self.vocabulary} has no room beside the special tokens")

    @property
    def map_side(self) -> int:
        """Side of the smallest map."""
        return self.image_size_px // 16

    @property
    def mlp_dim(self) -> int:
        return 4 * self.embedding


def _variant(latent: int, embedding: int, vocabulary: int) -> CaptionerConfig:
    return CaptionerConfig(512, (64, 128, 256, 512), latent, embedding, vocabulary, 3, 8, 100)


VARIANTS = {
    "small": _variant(256, 128, 4000),
    "medium": _variant(512, 256, 5000),
    "large": _variant(1024, 512, 8000),
    "xl": _variant(2048, 768, 12000),
}
# Of the contrastive loss and of the similarity that `--similar` prints.
TEMPERATURE = 0.07
