"""Sizes of the foveated VLM's networks. Importing this imports neither torch nor onnx.

Source: the published configurations of DINOv3 ViT-S/16 and SmolLM2-135M, checked against the shapes of their weights.
"""

from dataclasses import dataclass

from backends.tensor import TensorSpec
from graphs.networks.spec import GraphSpec, KeyNames, ModelSpec


@dataclass(frozen=True)
class DinoConfig:
    """Sizes of a DINOv3 ViT for square images of one size."""

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
        """Number of tokens before the patches: the class token and the registers."""
        return 1 + self.num_registers


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama language model whose output head is its embedding table."""

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
                f"expected dim to be a multiple of 2 * num_heads, and num_heads of num_kv_heads; got dim {self.dim}, "
                f"num_heads {self.num_heads} and num_kv_heads {self.num_kv_heads}"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True)
class FilmConfig:
    """Sizes of the prediction head: the hidden width of its MLP, and the channels of its encoding convolutions."""

    hidden: int
    channels: tuple[int, int, int]


@dataclass(frozen=True)
class FoveatedConfig:
    """Sizes of the two-pass model.

    latent_channels and latent_side are the sizes of a frame's VAE latent. sequence_length is the number of tokens that
    the language model gets at once: text, one token that names the pass, one token for each frame, and padding last,
    which a causal model does not see. frames is the number of frames in one run of a query graph. lambda_coarse weighs
    the loss of the first pass.
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

# A checkpoint is the published files of DINOv3 and SmolLM2 and a file of the other weights; or one file, with `dino.`
# and `language.` before the published names. DINOv3's blocks are called layer.0 or, by newer code, model.layer.0.
# SmolLM2's head is its embedding table, and a copy of it is ignored.
_KEY_NAMES = KeyNames(
    renamed=(
        ("dino.layer.", "dino.model.layer."),
        ("layer.", "dino.model.layer."),
        ("model.layer.", "dino.model.layer."),
        ("embeddings.", "dino.embeddings."),
        ("norm.", "dino.norm."),
        ("model.", "language.model."),
    ),
    ignored=("lm_head.weight", "language.lm_head.weight"),
)


def foveated_spec(name: str, summary: str, config: FoveatedConfig) -> ModelSpec:
    """Return the spec of the two-pass model. Query graphs and `predict` take `config.frames` frames at once."""
    dino, frames, length = config.dino, config.frames, config.sequence_length
    patches, dim, text_dim = dino.side**2, dino.dim, config.language.dim
    latent = (config.latent_channels, config.latent_side, config.latent_side)

    def tensor(name: str, *shape: int, layout: str | None = None) -> TensorSpec:
        return TensorSpec(name, shape, "float32", layout)

    def keys_values(frames: int) -> tuple[TensorSpec, ...]:
        heads, head_dim, blocks = frames * dino.num_heads, dim // dino.num_heads, range(dino.depth)
        keys = (tensor(f"keys_{block}", heads, head_dim, patches) for block in blocks)
        return *keys, *(tensor(f"values_{block}", heads, patches, head_dim) for block in blocks)

    seen = (tensor("token", frames, text_dim), tensor("attention", frames, patches))
    graphs = (
        GraphSpec(
            role="encode_frames",
            architecture="foveated-encode-frames",
            config=dino,
            inputs=(tensor("frame", 1, 3, dino.image_size_px, dino.image_size_px, layout="NCHW"),),
            outputs=(tensor("patches", 1, patches, dim), *keys_values(1)),
            prefix="dino.",
        ),
        GraphSpec(
            role="query_shallow",
            architecture="foveated-query-shallow",
            config=config,
            inputs=(tensor("query", frames, dim), tensor("patches", frames, patches, dim)),
            outputs=seen,
            prefix="",
        ),
        GraphSpec(
            role="query_deep",
            architecture="foveated-query-deep",
            config=config,
            inputs=(tensor("query", frames, dim), *keys_values(frames)),
            outputs=seen,
            prefix="",
        ),
        GraphSpec(
            role="language",
            architecture="foveated-language",
            config=config,
            inputs=(tensor("sequence", 1, length, text_dim),),
            outputs=(tensor("states", 1, length, text_dim), tensor("queries", 1, length, dim)),
            prefix="",
        ),
        GraphSpec(
            role="predict",
            architecture="foveated-predict",
            config=config,
            inputs=(tensor("state", frames, text_dim), tensor("latent", frames, *latent, layout="NCHW")),
            outputs=(tensor("next_latent", frames, *latent, layout="NCHW"),),
            prefix="head.",
        ),
    )
    description = {
        "name": name,
        "kind": "foveated",
        "image_size_px": dino.image_size_px,
        "grid_side": dino.side,
        "frames": frames,
        "sequence_length": length,
        "text_dim": text_dim,
        "latent_shape": list(latent),
        "lambda_coarse": config.lambda_coarse,
    }
    learned = (
        tensor("q_static", 1, dim),
        tensor("q_init", 1, dim),
        tensor("coarse_token", 1, text_dim),
        tensor("fine_token", 1, text_dim),
        tensor("z_vae_init", 1, *latent),
    )
    return ModelSpec(name, summary, description, graphs, _KEY_NAMES, learned)


SPECS = (
    foveated_spec("foveated", "Two-pass video model: DINOv3 ViT-S/16, SmolLM2-135M, FiLM prediction head", FOVEATED),
)
