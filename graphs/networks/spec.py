"""Frozen dataclasses to plain JSON and back, strictly, so that a manifest can say what network a file holds."""

import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from backends.errors import InvalidArtifact, NotAvailable
from backends.registry import ARCHITECTURES
from backends.tensor import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


_Config = TypeVar("_Config")


def to_json(config: object) -> Any:
    """A dataclass becomes an object with its class name under "type"; tuples become lists; the rest stays."""
    if is_dataclass(config):
        values = {field.name: to_json(getattr(config, field.name)) for field in fields(config)}
        return {"type": type(config).__name__, **values}
    return [to_json(item) for item in config] if isinstance(config, tuple) else config


def from_json(kind: type[_Config], value: object, where: str) -> _Config:
    """Read what to_json wrote as the dataclass `kind`. Raises InvalidArtifact that names the place.

    Every field must be there, no other may be, and each must have the type that its annotation says.
    """
    config = _read(kind, value, where)
    assert isinstance(config, kind)
    return config


def _read(kind: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _read(_choose(arguments, value, where), value, where)
    if origin is typing.Literal:
        if value not in arguments or isinstance(value, bool):
            raise InvalidArtifact(f"{where}: expected one of {list(arguments)}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise InvalidArtifact(f"{where}: expected a list like {kind}, got {value!r}")
        return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, where)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise InvalidArtifact(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
    return float(value) if kind is float else value


def _read_dataclass(kind: type, value: object, where: str) -> Any:
    annotations = typing.get_type_hints(kind)
    expected = {"type", *annotations}
    if not isinstance(value, dict) or set(value) != expected:
        got = sorted(value) if isinstance(value, dict) else value
        raise InvalidArtifact(f"{where}: expected the keys {sorted(expected)}, got {got!r}")
    if value["type"] != kind.__name__:
        raise InvalidArtifact(f"{where}.type: expected {kind.__name__}, got {value['type']!r}")
    try:
        return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in annotations.items()})
    except ValueError as error:
        raise InvalidArtifact(f"{where}: {error}") from error


def _choose(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    """The member of a union that a value can be: null for None, the named class for an object."""
    if value is None and type(None) in kinds:
        return type(None)
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return kinds[0]
    name = value.get("type") if isinstance(value, dict) else None
    for kind in kinds:
        if kind.__name__ == name:
            return kind
    raise InvalidArtifact(f"{where}.type: expected one of {[kind.__name__ for kind in kinds]}, got {name!r}")


@dataclass(frozen=True)
class GraphSpec:
    """One graph of a model, which becomes one ONNX file.

    role names it inside its model ("detector"). architecture is its name in ARCHITECTURES and config the frozen
    dataclass that sizes it. inputs and outputs are as for one image.
    prefix: of the keys of its weights in a checkpoint; its role and a dot, if nothing else is said. Graphs may have
    keys in common. network names graphs whose weights are the very same, and which share the files that hold them.
    """

    role: str
    architecture: str
    config: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    prefix: str | None = None
    network: str | None = None

    @property
    def architecture_json(self) -> dict[str, Any]:
        """{"name", "config"} as a manifest holds it."""
        return {"name": self.architecture, "config": to_json(self.config)}

    def key(self, name: str) -> str:
        """The checkpoint's key of a tensor of the network."""
        return f"{self.role}.{name}" if self.prefix is None else self.prefix + name

    def build(self) -> "nn.Module":
        """The torch module in eval mode, its weights not loaded. Raises NotAvailable without torch."""
        module: nn.Module = ARCHITECTURES.load(self.architecture)(to_json(self.config))
        return module.eval()

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

    learned: small float32 tensors of the checkpoint that whoever runs the model needs beside its graphs; the manifest
    carries them. left_out: roles of graphs that `only` took out, whose weights a checkpoint may hold all the same.
    """

    name: str
    summary: str
    description: dict[str, Any]
    graphs: tuple[GraphSpec, ...]
    key_names: KeyNames = KeyNames()
    learned: tuple[TensorSpec, ...] = ()
    left_out: tuple[GraphSpec, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(graph.role for graph in self.graphs)

    @property
    def networks(self) -> tuple[tuple[GraphSpec, ...], ...]:
        """The graphs, those of one network together."""
        groups: dict[str, list[GraphSpec]] = {}
        for graph in self.graphs:
            groups.setdefault(graph.network or graph.role, []).append(graph)
        return tuple(map(tuple, groups.values()))

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
        left_out = tuple(graph for graph in self.graphs if graph.role not in chosen)
        return replace(self, graphs=graphs, left_out=(*self.left_out, *left_out))

    def expected_state(self) -> "dict[str, Tensor]":
        """Every key of a checkpoint of this model, with its shape and dtype. Needs torch."""
        import torch

        state = _state_of(self.networks)
        for tensor in self.learned:
            state[tensor.name] = torch.empty(tensor.shape, device="meta")
        return state

    def count_parameters(self) -> int:
        """How many numbers are learned, whether a graph uses them or not. Needs torch."""
        return sum(like.numel() for like in self.expected_state().values() if like.is_floating_point())

    def may_hold(self) -> "Callable[[str], bool]":
        """Whether a checkpoint may hold a key besides: those of graphs that were left out. Needs torch."""
        keys = set(_state_of(tuple((graph,) for graph in self.left_out)))
        prefixes = tuple(graph.key("") for graph in self.left_out if graph.key(""))
        return lambda key: key in keys or key.startswith(prefixes)


def _state_of(networks: tuple[tuple[GraphSpec, ...], ...]) -> "dict[str, Tensor]":
    return {graph.key(name): like for graph, *_ in networks for name, like in graph.expected_state().items()}
