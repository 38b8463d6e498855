"""The Seal family as models: a detector and an embedder each. Importing this imports neither torch nor onnx."""

from backends.registry import ARCHITECTURES
from backends.tensor import TensorSpec
from graphs.model_spec import GraphSpec, KeyNames, ModelSpec
from graphs.seal.cards import CARDS, Card

# By the names of the packages: this project is installed from a checkout, and an index may know another by its name.
ARCHITECTURES.register("seal-detector", "graphs.seal.build:detector", needs="torch safetensors")
ARCHITECTURES.register("seal-embedder", "graphs.seal.build:embedder", needs="torch safetensors")

# What published files also hold, and detection and embedding do not need. `embedder.msg_processor` repeats
# `embedder.unet.msg_processor`.
_KEY_NAMES = KeyNames(
    ignored=("attenuation.", "rgb2yuv.", "blender.", "augmenter.", "discriminator", "embedder.msg_processor.")
)


def seal_spec(name: str, card: Card) -> ModelSpec:
    """The two networks of a Seal card, detector first, with the tensor names that every backend uses."""
    detector, embedder = card.detector, card.embedder
    side, small = detector.image_size_px, embedder.image_size_px
    return ModelSpec(
        name=name,
        summary=card.summary,
        description={
            "name": name,
            "kind": "watermark",
            "bits": detector.bits,
            "image_size_px": side,
            "detection_threshold": card.detection_threshold,
            "embedder": {
                "image_size_px": small,
                "channels": embedder.channels,
                "scaling_w": embedder.scaling_w,
                "scaling_i": embedder.scaling_i,
                "attenuation": embedder.attenuation,
            },
        },
        graphs=(
            GraphSpec(
                role="detector",
                architecture="seal-detector",
                config=detector,
                inputs=(TensorSpec("image", (1, 3, side, side), "float32", "NCHW"),),
                outputs=(TensorSpec("logits", (1, 1 + detector.bits), "float32", None),),
            ),
            GraphSpec(
                role="embedder",
                architecture="seal-embedder",
                config=embedder,
                inputs=(
                    TensorSpec("image", (1, 3, small, small), "float32", "NCHW"),
                    TensorSpec("message", (1, embedder.bits), "float32", None),
                ),
                outputs=(TensorSpec("watermark", (1, embedder.channels, small, small), "float32", "NCHW"),),
            ),
        ),
        key_names=_KEY_NAMES,
    )


SPECS = tuple(seal_spec(name, card) for name, card in CARDS.items())
