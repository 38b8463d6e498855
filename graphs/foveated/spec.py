"""The foveated VLM as a model of five graphs. Importing this imports neither torch nor onnx."""

from backends.registry import ARCHITECTURES
from backends.tensor import TensorSpec
from graphs.foveated.config import FOVEATED, FoveatedConfig
from graphs.model_spec import GraphSpec, KeyNames, ModelSpec

for _graph in ("encode_frames", "query_shallow", "query_deep", "language", "predict"):
    ARCHITECTURES.register(
        f"foveated-{_graph.replace('_', '-')}", f"graphs.foveated.build:{_graph}", needs="torch safetensors"
    )

# DINOv3's and SmolLM2's own files go with one of the rest; or all of it in one file, `dino.` and `language.` before
# the published names. Blocks are called layer.0 or, by newer code, model.layer.0. SmolLM2's head is its embedding.
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
    """The graphs of the two-pass model. Query graphs and `predict` take `config.frames` frames at once."""
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
