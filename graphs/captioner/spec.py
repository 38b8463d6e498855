"""The captioner as a model of five graphs. Importing this imports neither torch nor onnx."""

from backends.registry import ARCHITECTURES
from backends.tensor import TensorSpec
from graphs.captioner.config import VARIANTS, CaptionerConfig
from graphs.model_spec import GraphSpec, ModelSpec

for _graph in ("encode_image", "decode_image", "encode_text", "decode_text_prefill", "decode_text_step"):
    ARCHITECTURES.register(
        f"captioner-{_graph.replace('_', '-')}", f"graphs.captioner.build:{_graph}", needs="torch safetensors"
    )


def captioner_spec(name: str, summary: str, config: CaptionerConfig) -> ModelSpec:
    """The graphs of the captioner. Tokens are padded to max_tokens, and so is the room for keys and values."""
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
