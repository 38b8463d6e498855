"""Operators of a lowered file that LiteRT does not load: found one by one, and named after the nodes of the graph."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from backends.errors import InvalidArtifact
from backends.sandbox import SandboxDied, SandboxProcess
from graphs.tflite.graph import read_graph
from graphs.tflite.part import RefusedOp, find_refused_ops, load_error
from toolkit.convert.names import CarriedNames

_SHOWN = 3
ADVICE = "make the files for ONNX Runtime alone (--runtime ort), or export the model without these operators"
# onnx2tf writes an operator that it has none for as this and the name of the ONNX operator, in capitals.
_CUSTOM = "ONNX_"


class NodeNames:
    """Names the nodes of a graph to which the operators of its lowered file belong."""

    def __init__(self, model: ir.Model, names: CarriedNames) -> None:
        self._names = names
        nodes = list(model.graph)
        self._makers = {str(value.name): node for node in nodes for value in node.outputs}
        self._nodes = {str(node.name): node for node in nodes if node.name}

    def described(self, refused: RefusedOp, stored: Mapping[str, str]) -> str:
        """Return the operator with its node, such as "BATCH_MATMUL of node 'resize' (Resize)".

        stored: name of a tensor in the file -> its name in the graph, where known. Other tensors are called by the name
        of their node and a word of the lowering. Without any of these, the operator is named with its tensor.
        """
        for output in refused.outputs:
            node = self._makers.get(stored.get(output, output)) or self._by_prefix(output)
            if node is not None:
                node = _behind(node, refused.name.removeprefix(_CUSTOM)) if refused.name.startswith(_CUSTOM) else node
                named = self._names.own(str(node.name or node.outputs[0].name))
                return f"{refused.name} of node {named!r} ({node.op_type})"
        return f"{refused.name} that makes {', '.join(map(repr, refused.outputs))}"

    def _by_prefix(self, tensor: str) -> ir.Node | None:
        prefixes = (tensor[:end] for end in range(len(tensor), 0, -1) if end == len(tensor) or tensor[end] == "_")
        return next((self._nodes[prefix] for prefix in prefixes if prefix in self._nodes), None)


class InFloat:
    """The operators of the quantized files of a graph that stay in float32.

    named: by precision, the operators with their nodes. tensors: by precision, the tensors that they make.
    """

    def __init__(self, nodes: NodeNames) -> None:
        self.named: dict[str, list[str]] = {}
        self.tensors: dict[str, list[str]] = {}
        self._nodes = nodes

    def keep(self, precision: str, operators: Iterable[RefusedOp], stored: Mapping[str, str]) -> list[str]:
        """Add operators of a precision, and return the tensors that they make. stored: as in NodeNames.described."""
        tensors: list[str] = []
        for one in operators:
            tensors += one.outputs
            named = self.named.setdefault(precision, [])
            if (operator := self._nodes.described(one, stored)) not in named:
                named.append(operator)
        self.tensors.setdefault(precision, []).extend(tensors)
        return tensors


def _behind(node: ir.Node, kind: str) -> ir.Node:
    """Return the node of a kind, in capitals, from which a tensor comes through other nodes: the lowering may have
    merged them. Without one, the node that makes the tensor."""
    at: ir.Node | None = node
    while at is not None and at.op_type.upper() != kind:
        first = at.inputs[0] if at.inputs else None
        at = None if first is None else first.producer()
    return at or node


def quantized_refusals(path: Path, trial: SandboxProcess) -> list[RefusedOp]:
    """Return the operators of a quantized file that LiteRT does not load because they are quantized; none for a file
    that it loads, or that ends the process: the comparison with the graph explains that."""
    try:
        # Without XNNPACK, which would pack all weights.
        if trial.call(load_error, path, False) is None:
            return []
        return [one for one in find_refused_ops(path, trial) if one.quantized]
    except SandboxDied:
        return []


def unsafe_divisions(path: Path) -> list[RefusedOp]:
    """Return the divisions of a float file by numbers that it computes.

    In integers such a number may be rounded to 0, and LiteRT then ends the run with an error.
    """
    divisions = [node for node in read_graph(path).nodes if node.code[0] == schema.BuiltinOperator.DIV]
    computed = [node for node in divisions if node.inputs[1] is not None and node.inputs[1].payload is None]
    outputs = [tuple(one.name for one in node.outputs if one is not None) for node in computed]
    return [RefusedOp("DIV", names, True, "its divisor may be rounded to 0") for names in outputs]


def refusal(
    graph: Path,
    lowered: Path,
    error: InvalidArtifact,
    nodes: NodeNames,
    stored: Mapping[str, str],
    trial: SandboxProcess,
) -> InvalidArtifact:
    """Return the error for a lowered file that LiteRT does not run, with the nodes that are to blame if any is found.

    error: LiteRT's own, which is returned if no operator is refused when it is alone.
    """
    try:
        found = find_refused_ops(lowered, trial)
    except (SandboxDied, InvalidArtifact):
        return error
    if not found:
        return error
    named = _listed(f"{nodes.described(one, stored)} ({_reason(one)})" for one in found)
    return InvalidArtifact(
        f"{graph}: no TFLite file can be made: LiteRT refuses what onnx2tf makes of it: {named}; {ADVICE}"
    )


def _reason(refused: RefusedOp) -> str:
    return "TFLite has no such operator" if refused.name.startswith(_CUSTOM) else refused.reason.rstrip(".")


def _listed(texts: Iterable[str]) -> str:
    every = list(dict.fromkeys(texts))
    more = f"; and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return "; ".join(every[:_SHOWN]) + more
