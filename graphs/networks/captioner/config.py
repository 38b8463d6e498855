"""Sizes of the captioner. Importing this imports neither torch nor onnx.

Source: the published layer list. Where a published total disagrees with the list, the list counts: the image decoder of
the large variant has 540 million parameters, nearly all of them in its first Linear.
"""

from dataclasses import dataclass

from backends.tensor import TensorSpec
from graphs.networks.spec import GraphSpec, ModelSpec

# Token ids that every vocabulary keeps free.
PADDING, BEGIN, END = 0, 1, 2


@dataclass(frozen=True)
class CaptionerConfig:
    """Sizes of all four networks of the captioner.

    channels: of the encoder's four convolutions, each of which halves the sides of the image; the decoder has them in
    reverse. max_tokens: length of the longest text, with its begin token.
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
            raise ValueError(f"expected a vocabulary larger than the special tokens, got {self.vocabulary}")

    @property
    def map_side(self) -> int:
        """Side of the smallest map, in cells: a sixteenth of the image's."""
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

# Divides the cosines in the contrastive loss, and in the similarity that `--similar` prints.
TEMPERATURE = 0.07


def captioner_spec(name: str, summary: str, config: CaptionerConfig) -> ModelSpec:
    """Return the spec of a captioner. Tokens are padded to max_tokens, and so is the room for keys and values."""
    side, length = config.image_size_px, config.max_tokens
    heads, head_dim = config.depth * config.num_heads, config.embedding // config.num_heads

    def tensor(name: str, *shape: int, dtype: str = "float32", layout: str | None = None) -> TensorSpec:
        return TensorSpec(name, (1, *shape), dtype, layout)

    image = tensor("image", 3, side, side, layout="NCHW")
    latent, tokens = tensor("latent", config.latent), tensor("tokens", length, dtype="int32")
    past = (tensor("keys", heads * length, head_dim), tensor("values", heads * length, head_dim))
    memory = tensor("memory", config.depth, config.embedding)
    step_inputs = (tensor("token", 1, dtype="int32"), TensorSpec("position", (1,), "int32", None), *past, memory)
    step_outputs = (
        tensor("logits", config.vocabulary),
        tensor("new_keys", heads, head_dim),
        tensor("new_values", heads, head_dim),
    )

    def graph(
        role: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        prefix: str,
        network: str | None = None,
    ) -> GraphSpec:
        return GraphSpec(role, f"captioner-{role.replace('_', '-')}", config, inputs, outputs, prefix, network)

    prefill_outputs = (tensor("logits", length, config.vocabulary), *past, memory)
    graphs = (
        graph("encode_image", (image,), (latent,), "image_encoder."),
        graph("decode_image", (latent,), (image,), "image_decoder."),
        graph("encode_text", (tokens,), (latent,), "text_encoder."),
        graph("decode_text_prefill", (latent, tokens), prefill_outputs, "text_decoder.", "text_decoder"),
        graph("decode_text_step", step_inputs, step_outputs, "text_decoder.", "text_decoder"),
    )
    description = {
        "name": name,
        "kind": "captioner",
        "image_size_px": side,
        "latent": config.latent,
        "vocabulary": config.vocabulary,
        "max_tokens": length,
        "layers_and_heads": heads,
    }
    return ModelSpec(name, summary, description, graphs)


SPECS = tuple(
    captioner_spec(
        f"captioner-{variant}",
        f"Image to latent to caption and back, {variant}: latent {c.latent}, vocabulary {c.vocabulary}",
        c,
    )
    for variant, c in VARIANTS.items()
)
