"""Which torch module a node of an exported graph comes from, by the names that the exporter left in it."""

import re
from collections.abc import Sequence
from itertools import takewhile

import onnx_ir as ir

# What our passes add to a weight's name, with a number where that is taken.
_ADDED = re.compile(r"(\.(folded_bias|folded|transposed|vector|offset|ones?|constant)(\.\d+)?)+$")


def modules_of(model: ir.Model) -> dict[ir.Node, str]:
    """Node -> path of its module, "" where nothing tells.

    A node with a weight is its weight's module: the exporter keeps the names of a checkpoint. A scoped name, as older
    exporters write them (/encoder/layer/MatMul), says it as well. Any other node, an activation or a product of two
    maps, belongs to the innermost module that holds the nodes with weights on both sides of it.
    """
    nodes = list(model.graph)
    known = [_of_name(node) or _of_weights(node) for node in nodes]
    before = _last_known(known)
    after = _last_known(known[::-1])[::-1]
    return {node: known[i] or _common(before[i], after[i]) or before[i] or after[i] for i, node in enumerate(nodes)}


def _of_name(node: ir.Node) -> str:
    scopes = str(node.name or "").split("/")
    return ".".join(scopes[1:-1]) if len(scopes) > 2 and not scopes[0] else ""


def _of_weights(node: ir.Node) -> str:
    for value in node.inputs[::-1]:  # a bias keeps its name where a matrix is named after its transpose
        if value is not None and value.is_initializer() and "." in (name := _plain(str(value.name))):
            path = name.rpartition(".")[0]
            if not path.startswith(("val_", "node_")):
                return path
    return ""


def _plain(name: str) -> str:
    """A weight's name as the checkpoint has it: what passes made of it has it in front."""
    return _ADDED.sub("", name)


def _last_known(paths: Sequence[str]) -> list[str]:
    last, found = "", []
    for path in paths:
        last = path or last
        found.append(last)
    return found


def _common(one: str, other: str) -> str:
    pairs = zip(one.split("."), other.split("."), strict=False)
    return ".".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
