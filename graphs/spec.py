"""What every model is, by name. Importing this imports neither torch nor onnx."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backends.errors import NotAvailable
from backends.registry import ARCHITECTURES
from backends.tensor import TensorSpec
from graphs.config_json import to_json
from graphs.seal.cards import CARDS, Card

if TYPE_CHECKING:
    from torch import Tensor, nn

# By the names of the packages: this project is installed from a checkout, and an index may know another by its name.
ARCHITECTURES.register("seal-detector", "graphs.seal.build:detector", needs="torch safetensors")
ARCHITECTURES.register("seal-embedder", "graphs.seal.build:embedder", needs="torch safetensors")


@dataclass(frozen=True)
class GraphSpec:
    """One network of a model, which becomes one ONNX file.

    role names it inside its model ("detector"), and is the prefix of its keys in a checkpoint.
    architecture is its name in ARCHITECTURES and config the frozen dataclass that sizes it.
    inputs and outputs have batch size 1.
    """

    role: str
    architecture: str
    config: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def architecture_json(self) -> dict[str, Any]:
        """{"name", "config"} as a manifest holds it."""
        return {"name": self.architecture, "config": to_json(self.config)}

    def build(self) -> "nn.Module":
        """The torch module in eval mode, its weights not loaded. Raises NotAvailable without torch."""
        make: Callable[[object], nn.Module] = ARCHITECTURES.load(self.architecture)
        return make(to_json(self.config)).eval()

    def expected_state(self) -> "dict[str, Tensor]":
        """Names, shapes and dtypes of the network's state, without memory for its values. Needs torch."""
        import torch

        with torch.device("meta"):
            return dict(self.build().state_dict())


@dataclass(frozen=True)
class ModelSpec:
    """A named model: its networks, and the `description` that a bundle's manifest carries as `model`."""

    name: str
    summary: str
    description: dict[str, Any]
    graphs: tuple[GraphSpec, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(graph.role for graph in self.graphs)

    def graph(self, role: str) -> GraphSpec:
        """The network of a role. Raises NotAvailable that lists the roles."""
        for graph in self.graphs:
            if graph.role == role:
                return graph
        raise NotAvailable(f"{self.name}: no {role!r}; there is {', '.join(self.roles)}")

    def only(self, *roles: str) -> "ModelSpec":
        """The same model with these of its networks, in its own order; without roles, all of them."""
        chosen = {self.graph(role).role for role in roles or self.roles}
        return replace(self, graphs=tuple(graph for graph in self.graphs if graph.role in chosen))


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
    )


MODELS: dict[str, ModelSpec] = {name: seal_spec(name, card) for name, card in CARDS.items()}


def find_spec(name: str) -> ModelSpec:
    """The model of a name. Raises NotAvailable that lists the names."""
    if name not in MODELS:
        raise NotAvailable(f"no model named {name!r}; there is {', '.join(MODELS)}")
    return MODELS[name]
