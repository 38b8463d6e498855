"""Specs of models and their graphs, and their configurations as strict JSON, as manifests hold them."""

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
    """Return a configuration as plain JSON values.

    A dataclass becomes an object with its class name under "type", a tuple a list; other values stay.
    """
    if is_dataclass(config):
        values = {field.name: to_json(getattr(config, field.name)) for field in fields(config)}
        return {"type": type(config).__name__, **values}
    return [to_json(item) for item in config] if isinstance(config, tuple) else config


def from_json(kind: type[_Config], value: object, where: str) -> _Config:
    """Read JSON values that to_json returned as the dataclass `kind`. Raises InvalidArtifact naming the wrong place.

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
    """Return the member of a union that fits a value: NoneType for None, the class that an object names."""
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

    role: its name inside the model, such as "detector". architecture: its name in ARCHITECTURES. config: the frozen
    dataclass with its sizes. inputs, outputs: as for one image. prefix: of the keys of its weights in a checkpoint, by
    default the role and a dot; graphs may have keys in common. network: graphs of the same network have the very same
    weights, and share the files that hold them.
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
        """The architecture as a manifest holds it: {"name", "config"}."""
        return {"name": self.architecture, "config": to_json(self.config)}

    def key(self, name: str) -> str:
        """Return the key in a checkpoint of a tensor of the network."""
        return f"{self.role}.{name}" if self.prefix is None else self.prefix + name

    def build(self) -> "nn.Module":
        """Return the torch module in eval mode, its weights not loaded. Raises NotAvailable without torch."""
        module: nn.Module = ARCHITECTURES.load(self.architecture)(to_json(self.config))
        return module.eval()

    def expected_state(self) -> "dict[str, Tensor]":
        """Return the network's state dict on torch's meta device: names, shapes and dtypes without values.

        Needs torch.
        """
        import torch

        with torch.device("meta"):
            return dict(self.build().state_dict())


def unwrapped(name: str) -> str:
    """Return a tensor's name without the parts that torch's DataParallel and torch.compile add to it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


@dataclass(frozen=True)
class KeyNames:
    """The names of a model's weights in published files, where they differ from those of GraphSpec.key.

    renamed: (prefix in a file, prefix here); the first that fits a key is applied. ignored: prefixes of tensors in a
    file that this project does not need. foreign: prefixes of another model in the same file, which may be far larger;
    none of it is read.
    """

    renamed: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def key(self, name: str) -> str:
        """Return the key of a tensor that a file calls `name`."""
        name = unwrapped(name)
        for theirs, ours in self.renamed:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name


@dataclass(frozen=True)
class ModelSpec:
    """A named model: its graphs, and the `description` that a bundle's manifest carries as `model`.

    learned: small float32 tensors of the checkpoint that the runner of the model needs beside its graphs; the manifest
    carries them. left_out: graphs that `only` removed; a checkpoint may hold their weights.
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
        """The graphs, grouped by network."""
        groups: dict[str, list[GraphSpec]] = {}
        for graph in self.graphs:
            groups.setdefault(graph.network or graph.role, []).append(graph)
        return tuple(map(tuple, groups.values()))

    def graph(self, role: str) -> GraphSpec:
        """Return the graph of a role. Raises NotAvailable listing the roles."""
        for graph in self.graphs:
            if graph.role == role:
                return graph
        raise NotAvailable(f"{self.name}: no {role!r}; there is {', '.join(self.roles)}")

    def only(self, *roles: str) -> "ModelSpec":
        """Return the same model with only the graphs of these roles, in the model's order.

        Without roles, it keeps all graphs. Raises NotAvailable for a role that the model does not have.
        """
        chosen = {self.graph(role).role for role in roles or self.roles}
        graphs = tuple(graph for graph in self.graphs if graph.role in chosen)
        left_out = tuple(graph for graph in self.graphs if graph.role not in chosen)
        return replace(self, graphs=graphs, left_out=(*self.left_out, *left_out))

    def expected_state(self) -> "dict[str, Tensor]":
        """Return every key of a checkpoint of this model, with its shape and dtype on torch's meta device.

        Needs torch.
        """
        import torch

        state = _state_of(self.networks)
        for tensor in self.learned:
            state[tensor.name] = torch.empty(tensor.shape, device="meta")
        return state

    def count_parameters(self) -> int:
        """Return the number of learned values, whether a graph uses them or not. Needs torch."""
        return sum(like.numel() for like in self.expected_state().values() if like.is_floating_point())

    def left_out_state(self) -> "dict[str, Tensor]":
        """Return the keys of the graphs that were left out, as expected_state does. Needs torch."""
        return _state_of(tuple((graph,) for graph in self.left_out))

    def may_hold(self) -> "Callable[[str], bool]":
        """Return a function that tells whether a key belongs to a graph that was left out. Needs torch.

        A checkpoint may hold such keys beside the expected ones.
        """
        keys = set(self.left_out_state())
        prefixes = tuple(graph.key("") for graph in self.left_out if graph.key(""))
        return lambda key: key in keys or key.startswith(prefixes)


def _state_of(networks: tuple[tuple[GraphSpec, ...], ...]) -> "dict[str, Tensor]":
    return {graph.key(name): like for graph, *_ in networks for name, like in graph.expected_state().items()}
