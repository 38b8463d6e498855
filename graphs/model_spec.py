"""What a model is made of: its networks, the graphs that they become, and the names of their weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backends.errors import NotAvailable
from backends.registry import ARCHITECTURES
from backends.tensor import TensorSpec
from graphs.config_json import to_json

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class GraphSpec:
    """One graph of a model, which becomes one ONNX file.

    role names it inside its model ("detector"). architecture is its name in ARCHITECTURES and config the frozen
    dataclass that sizes it. inputs and outputs have batch size 1.
    network: the name of the weights that several graphs share, each of which then holds all of them; a graph without
    one is a network of its own, and its role is the prefix of its keys in a checkpoint.
    """

    role: str
    architecture: str
    config: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    network: str | None = None

    @property
    def architecture_json(self) -> dict[str, Any]:
        """{"name", "config"} as a manifest holds it."""
        return {"name": self.architecture, "config": to_json(self.config)}

    @property
    def weights_name(self) -> str:
        """Names the file of its weights."""
        return self.network or self.role

    def key(self, name: str) -> str:
        """The checkpoint's key of a tensor of the network."""
        return name if self.network else f"{self.role}.{name}"

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
class KeyNames:
    """How published files name a model's weights, where not by GraphSpec.key.

    renamed: (prefix in a file, prefix here); the first that fits a key is applied. ignored: prefixes of what a file
    also holds and nothing here needs. foreign: prefixes of another model in the same file; it may be far larger than
    ours, and none of it is read.
    """

    renamed: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def key(self, name: str) -> str:
        """The key of what a file calls `name`."""
        for theirs, ours in self.renamed:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name


@dataclass(frozen=True)
class ModelSpec:
    """A named model: its graphs, and the `description` that a bundle's manifest carries as `model`.

    left_out: roles of graphs that `only` took out, whose weights a checkpoint may hold all the same.
    """

    name: str
    summary: str
    description: dict[str, Any]
    graphs: tuple[GraphSpec, ...]
    key_names: KeyNames = KeyNames()
    left_out: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(graph.role for graph in self.graphs)

    @property
    def networks(self) -> tuple[GraphSpec, ...]:
        """A graph of each network: the first, where several share one."""
        return tuple({graph.weights_name: graph for graph in reversed(self.graphs)}.values())[::-1]

    def graph(self, role: str) -> GraphSpec:
        """The graph of a role. Raises NotAvailable that lists the roles."""
        for graph in self.graphs:
            if graph.role == role:
                return graph
        raise NotAvailable(f"{self.name}: no {role!r}; there is {', '.join(self.roles)}")

    def only(self, *roles: str) -> "ModelSpec":
        """The same model with these of its graphs, in its own order; without roles, all of them."""
        chosen = {self.graph(role).role for role in roles or self.roles}
        graphs = tuple(graph for graph in self.graphs if graph.role in chosen)
        left_out = tuple(role for role in self.roles if role not in chosen)
        return replace(self, graphs=graphs, left_out=(*self.left_out, *left_out))

    def expected_state(self) -> "dict[str, Tensor]":
        """Every key of a checkpoint of this model, with its shape and dtype. Needs torch."""
        return {graph.key(name): like for graph in self.networks for name, like in graph.expected_state().items()}
