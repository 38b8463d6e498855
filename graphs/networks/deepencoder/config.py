"""Sizes of DeepEncoder. Importing this imports neither torch nor onnx.

Source: the published configuration of DeepSeek-OCR, checked against the shapes of its weights.
"""

from dataclasses import dataclass

from backends.tensor import TensorSpec
from graphs.networks.spec import GraphSpec, KeyNames, ModelSpec


@dataclass(frozen=True)
class SamConfig:
    """Sizes of the SAM image encoder, and of the two convolutions that compress its map 4 times along each axis.

    position_px: size of the images on whose grid the absolute and the global relative positions were learned.
    """

    position_px: int
    patch_size_px: int
    dim: int
    depth: int
    num_heads: int
    window_size: int
    global_blocks: tuple[int, ...]
    neck_channels: int
    compressor_channels: tuple[int, int]

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of the CLIP vision transformer.

    Its positions were learned on a grid of position_px / patch_size_px patches along each axis.
    """

    position_px: int
    patch_size_px: int
    dim: int
    depth: int
    num_heads: int
    mlp_dim: int

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")

    @property
    def position_side(self) -> int:
        return self.position_px // self.patch_size_px


@dataclass(frozen=True)
class DeepEncoderConfig:
    """Sizes of the whole tower for square images of one size; tokens_dim is the width of the language model."""

    image_size_px: int
    sam: SamConfig
    clip: ClipConfig
    tokens_dim: int

    def __post_init__(self) -> None:
        if self.sam.compressor_channels[-1] != self.clip.dim:
            raise ValueError(f"SAM gives {self.sam.compressor_channels[-1]} channels, CLIP takes {self.clip.dim}")
        if self.image_size_px % (4 * self.sam.patch_size_px):
            raise ValueError(f"image_size_px {self.image_size_px} is not a multiple of {4 * self.sam.patch_size_px}")

    @property
    def grid_side(self) -> int:
        """Number of tokens along each axis after compression."""
        return self.image_size_px // (4 * self.sam.patch_size_px)

    @property
    def sequence_length(self) -> int:
        """Number of tokens for the language model, with a newline token after each row and a separator token last."""
        return self.grid_side * (self.grid_side + 1) + 1


# Published as "window 8", but the relative positions of the weights are 27 long, which is a window of 14.
SAM_BASE = SamConfig(1024, 16, 768, 12, 12, 14, (2, 5, 8, 11), 256, (512, 1024))
CLIP_LARGE = ClipConfig(224, 14, 1024, 24, 16, 4096)
LANGUAGE_DIM = 1280
MODES_PX = {"tiny": 512, "small": 640, "base": 1024, "large": 1280}

# Names in DeepSeek-OCR's published file; the foreign ones belong to its language model.
_KEY_NAMES = KeyNames(
    renamed=(("model.", ""),),
    ignored=("model.vision_model.embeddings.position_ids",),
    foreign=("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
)


def deepencoder_spec(name: str, summary: str, modes: dict[str, DeepEncoderConfig]) -> ModelSpec:
    """Return a spec with a graph for each mode: `image` (1, 3, S, S) in [-1, 1] to `tokens` (1, sequence, dim)."""
    graphs = tuple(
        GraphSpec(
            role=mode,
            architecture="deepencoder",
            config=config,
            inputs=(TensorSpec("image", (1, 3, config.image_size_px, config.image_size_px), "float32", "NCHW"),),
            outputs=(TensorSpec("tokens", (1, config.sequence_length, config.tokens_dim), "float32", None),),
            prefix="",
            network=name,
        )
        for mode, config in modes.items()
    )
    sizes = {mode: {"image_size_px": c.image_size_px, "grid_side": c.grid_side} for mode, c in modes.items()}
    dim = next(iter(modes.values())).tokens_dim
    description = {"name": name, "kind": "deepencoder", "tokens_dim": dim, "modes": sizes}
    return ModelSpec(name, summary, description, graphs, _KEY_NAMES)


SPECS = (
    deepencoder_spec(
        "deepencoder",
        "DeepEncoder, the vision tower of DeepSeek-OCR: a page as 73 to 421 tokens",
        {mode: DeepEncoderConfig(px, SAM_BASE, CLIP_LARGE, LANGUAGE_DIM) for mode, px in MODES_PX.items()},
    ),
)
