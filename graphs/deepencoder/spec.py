"""DeepEncoder as a model: one network, a graph for each image size. Importing this imports neither torch nor onnx."""

from backends.registry import ARCHITECTURES
from backends.tensor import TensorSpec
from graphs.deepencoder.config import CLIP_LARGE, LANGUAGE_DIM, MODES_PX, SAM_BASE, DeepEncoderConfig
from graphs.model_spec import GraphSpec, KeyNames, ModelSpec

ARCHITECTURES.register("deepencoder", "graphs.deepencoder.build:encoder", needs="torch safetensors")

# DeepSeek-OCR's own file: everything else in it is its language model.
_KEY_NAMES = KeyNames(
    renamed=(("model.", ""),),
    ignored=("model.vision_model.embeddings.position_ids",),
    foreign=("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head."),
)


def deepencoder_spec(name: str, summary: str, modes: dict[str, DeepEncoderConfig]) -> ModelSpec:
    """A graph for each mode: `image` (1, 3, S, S) in [-1, 1] to `tokens` (1, sequence, dim)."""
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
