"""Names for the tensors of a graph that the lowering carries, and the way back to the graph's own names."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import onnx_ir as ir

from graphs.tflite.graph import Graph

Value = TypeVar("Value")

# onnx2tf writes other names for some characters, as "x__0" for "x:0".
_SAFE = re.compile(r"[A-Za-z0-9_./\-]+")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_./\-]")


class CarriedNames:
    """The tensors and nodes of a graph that were renamed: `carried` gives the new name of each, `own` the old one.

    Names that were not changed stand for themselves.
    """

    def __init__(self, renamed: Mapping[str, str]) -> None:
        self._carried = dict(renamed)
        self._own = {new: old for old, new in renamed.items()}

    def __bool__(self) -> bool:
        return bool(self._carried)

    def carried(self, name: str) -> str:
        """Return the name that the converter sees."""
        return self._carried.get(name, name)

    def own(self, name: str) -> str:
        """Return the name in the graph of the bundle."""
        return self._own.get(name, name)

    def all_carried(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return a mapping with the names that the converter sees."""
        return {self.carried(name): value for name, value in values.items()}

    def restore(self, graph: Graph) -> None:
        """Give the inputs and outputs in a file's signature, and the origins of its tensors, the graph's own names."""
        graph.inputs = {self.own(name): tensor for name, tensor in graph.inputs.items()}
        graph.outputs = {self.own(name): tensor for name, tensor in graph.outputs.items()}
        for origin in graph.origins:
            origin.name = self.own(origin.name)


def carry_names(model: ir.Model) -> CarriedNames:
    """Rename, in place, the tensors and nodes of a graph whose names the lowering does not carry.

    Names of letters, digits and `_ . / -` stay. Two names never become the same.
    """
    values = list(dict.fromkeys(_values(model)))
    taken = {str(value.name) for value in values} | {str(node.name) for node in model.graph.all_nodes()}
    renamed: dict[str, str] = {}

    def safe(name: str | None) -> str | None:
        if not name or _SAFE.fullmatch(name):
            return name
        if name not in renamed:
            new = base = _UNSAFE_CHARACTER.sub("_", name)
            number = 1
            while new in taken:
                number += 1
                new = f"{base}_{number}"
            taken.add(new)
            renamed[name] = new
        return renamed[name]

    for value in values:
        value.name = safe(value.name)
    for node in model.graph.all_nodes():
        node.name = safe(node.name)
    return CarriedNames(renamed)


def _values(model: ir.Model) -> Iterable[ir.Value]:
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from graph.inputs
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs
