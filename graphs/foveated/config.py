"""Sizes of the foveated VLM's networks. Importing this imports neither torch nor onnx.

Source: the published configurations of DINOv3 ViT-S/16 and SmolLM2-135M, checked against the shapes of their weights.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DinoConfig:
    """A DINOv3 ViT for square images of one size."""

    image_size_px: int
    patch_size_px: int
    dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    num_registers: int
    rope_theta: float

    def __post_init__(self) -> None:
        if self.dim % (4 * self.num_heads):
            raise ValueError(f"dim {self.dim} is not a multiple of 4 times num_heads {self.num_heads}")
        if self.image_size_px % self.patch_size_px:
            raise ValueError(f"image_size_px {self.image_size_px} is not a multiple of {self.patch_size_px}")

    @property
    def side(self) -> int:
        return self.image_size_px // self.patch_size_px

    @property
    def prefix_tokens(self) -> int:
        """The class token and the registers, which stand before the patches."""
        return 1 + self.num_registers


@dataclass(frozen=True)
class LlamaConfig:
    """A Llama language model whose output head is its embedding table."""

    vocabulary: int
    dim: int
    mlp_dim: int
    depth: int
    num_heads: int
    num_kv_heads: int
    rope_theta: float

    def __post_init__(self) -> None:
        if self.dim % (2 * self.num_heads) or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"dim {self.dim}, num_heads {self.num_heads} and num_kv_heads {self.num_kv_heads} do not divide"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True)
class FilmConfig:
    """The prediction head: the width of its two Linears, and the channels of the three convolutions into its middle."""

    hidden: int
    channels: tuple[int, int, int]


@dataclass(frozen=True)
class FoveatedConfig:
    """The two-pass model.

    latent_shape is (channels, side) of a frame's VAE latent. sequence_length is how many tokens the language model
    gets at once: text, one token that names the pass, a token a frame; what is left is filled up behind them, where
    a causal model does not see it. frames is how many frames one run of a query graph looks at.
    """

    dino: DinoConfig
    language: LlamaConfig
    head: FilmConfig
    latent_channels: int
    latent_side: int
    sequence_length: int
    frames: int
    lambda_coarse: float = 1.0

    def __post_init__(self) -> None:
        if self.sequence_length < self.frames + 2:
            raise ValueError(f"sequence_length {self.sequence_length} has no room for {self.frames} frames and a text")


DINOV3_VITS16 = DinoConfig(256, 16, 384, 12, 6, 1536, 4, 100.0)
SMOLLM2_135M = LlamaConfig(49152, 576, 1536, 30, 9, 3, 100_000.0)
FOVEATED = FoveatedConfig(DINOV3_VITS16, SMOLLM2_135M, FilmConfig(512, (64, 128, 256)), 4, 32, 32, 8)
