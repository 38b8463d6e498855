"""Modules of the source model, such as torch's, and the nodes of a graph that come from each.

torch's exporters write the scope of every node: the newer exporter as metadata, the older one in the name of the node.
Exporters of TensorFlow write the scope in the name of the node too; those of Paddle name a layer's tensors after it.
The scopes are read once, carried through every pass, and kept as {name of a node: path of its module} beside the file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from backends.bundle import Bundle
from backends.errors import NotAvailable

# Metadata of a node: a Python list of the paths of its modules from the outside in, and the node's own name last.
_SCOPES = "pkg.torch.onnx.name_scopes"
_QUOTED = re.compile(r"'([^']*)'")

_MODULE = "module"  # in node.meta, which is not written to files
# The function around a whole model of TensorFlow: "StatefulPartitionedCall", "PartitionedCall_1", "jit(predict)".
_WHOLE_MODEL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?|jit\(.*\)")
# A tensor that Paddle names after the layer that makes it, such as "conv2d_12.tmp_0".
_PADDLE_TENSOR = re.compile(r"(\w+_\d+)\.tmp_\d+")
_WORD = re.compile(r"[A-Za-z0-9]")


def read_scopes(model: ir.Model) -> None:
    """Mark each node with the path of its module, if scopes are in the graph. The path of the whole model is "".

    A node without a scope belongs to the innermost module that holds the nodes that read its outputs.
    """
    for node in model.graph:
        scopes = node.metadata_props.get(_SCOPES)
        module = _scope_in_names(node) if scopes is None else _innermost(_QUOTED.findall(scopes))
        if module is not None:
            node.meta[_MODULE] = module
    ModulesBefore(model).carry_to(model)


def set_modules(model: ir.Model, modules: Mapping[str, str]) -> None:
    """Mark the nodes of a graph with the modules that modules_by_node returned, found by the names of the nodes."""
    for node in model.graph:
        if (module := modules.get(node_key(node))) is not None:
            node.meta[_MODULE] = module


def modules_by_node(model: ir.Model) -> dict[str, str] | None:
    """Return {name of a node: path of its module, with dots}, or None for a graph without scopes.

    A node without a name goes by its first output. The path is "" for the whole model, and for a node that no single
    module holds.
    """
    nodes = list(model.graph)
    if all(_MODULE not in node.meta for node in nodes):
        return None
    found: dict[str, list[str]] = {}
    for node in nodes:
        found.setdefault(node_key(node), []).append(node.meta.get(_MODULE, ""))
    return {name: _common(modules) for name, modules in found.items()}


def node_key(node: ir.Node) -> str:
    """Return the key of a node in modules_by_node: its name, or else the name of its first output."""
    return str(node.name or node.outputs[0].name)


def _innermost(scopes: Sequence[str]) -> str:
    return scopes[-2] if len(scopes) > 1 else ""


def _scope_in_names(node: ir.Node) -> str | None:
    """Return the path of the module that the names of a node and of its first output state, or None."""
    name = node.name or ""
    if name.startswith("/"):
        return _scope_of_torch(name)
    if "/" in name:
        return _scope_of_tensorflow(name)
    layer = _PADDLE_TENSOR.fullmatch(node.outputs[0].name or "")
    return layer[1] if layer else None


def _scope_of_tensorflow(name: str) -> str:
    """Return the path (block1.conv) in a name like "StatefulPartitionedCall/block1/conv/Conv2D".

    A node that stands for several has the names of all of them, between semicolons: the first counts.
    """
    path = name.partition(";")[0].split("/")[:-1]
    while path and _WHOLE_MODEL.fullmatch(path[0]):
        del path[0]
    return ".".join(part for part in path if part)


def _scope_of_torch(name: str) -> str:
    """Return the path (layer1.0.conv1) in a name like "/layer1/layer1.0/conv1/Conv"."""
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


@dataclass(frozen=True)
class _Source:
    """A node as it was before a pass: its type, its module, and the names of its inputs."""

    op_type: str
    module: str
    inputs: tuple[str, ...]


class ModulesBefore:
    """The modules of a graph before a pass, to be carried to the nodes that the pass makes."""

    def __init__(self, model: ir.Model) -> None:
        self._by_output: dict[str, _Source] = {}
        for node in model.graph:
            if _MODULE in node.meta:
                inputs = tuple(value.name for value in node.inputs if value is not None and value.name)
                source = _Source(node.op_type, node.meta[_MODULE], inputs)
                self._by_output |= {str(value.name): source for value in node.outputs}

    def carry_to(self, model: ir.Model) -> None:
        """Mark every node that has no module with the innermost module that holds the nodes that it replaces.

        Where some replaced nodes have its operator type, only these count; where it replaces no node, the nodes that
        read its outputs do. A pass keeps names of tensors. So a new node replaces the node that made the tensor of the
        same name before, or the first such tensor that is computed from the new node, and all removed nodes that this
        tensor was computed from.
        """
        if not self._by_output:
            return
        names = {value.name for node in model.graph for value in node.outputs}
        made = [node for node in model.graph if _MODULE not in node.meta]
        found = {node: self._module_of(node, names) for node in made}
        for node, module in found.items():
            node.meta[_MODULE] = module

    def _module_of(self, node: ir.Node, names: set[str | None]) -> str:
        ends, readers = self._leads_to(node)
        replaced = self._replaced(ends, names)
        alike = [source.module for source in replaced if source.op_type == node.op_type]
        return _common(alike or [source.module for source in replaced] or readers)

    def _leads_to(self, node: ir.Node) -> tuple[list[str], list[str]]:
        """Return the first old tensors that a new node leads to, and the modules of the old nodes that it leads to."""
        ends: dict[str, None] = {}
        readers: list[str] = []
        waiting, seen = [node], {node}
        while waiting:
            for value in waiting.pop().outputs:
                if value.name in self._by_output:
                    ends[value.name] = None
                    continue
                for user in {use.node for use in value.uses()} - seen:
                    seen.add(user)
                    if _MODULE in user.meta:
                        readers.append(user.meta[_MODULE])
                    else:
                        waiting.append(user)
        return list(ends), readers

    def _replaced(self, ends: Sequence[str], names: set[str | None]) -> list[_Source]:
        """Return the old nodes that made these tensors, and the removed nodes that the tensors were computed from."""
        found: dict[_Source, None] = {}
        waiting, seen = list(ends), set(ends)
        while waiting:
            source = self._by_output[waiting.pop()]
            found[source] = None
            new = {name for name in source.inputs if name in self._by_output and name not in names} - seen
            seen |= new
            waiting += sorted(new)
        return list(found)


def _common(modules: Iterable[str]) -> str:
    """Return the innermost module that holds all of these modules."""
    shared: list[str] = []
    for parts in zip(*(module.split(".") for module in modules), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


@dataclass(frozen=True)
class Modules:
    """The path of the module of each node and value of a graph, by name, with dots; "" is the whole model."""

    by_name: Mapping[str, str]

    def of_operators(self, names: Sequence[str]) -> list[str]:
        """Return the module of each operator of a runtime.

        `names` are the runtime's names of its operators, in running order. A runtime may add to a name: `conv_1_nchwc`
        belongs to `conv_1`, and not to `conv`. An operator that the runtime added belongs to the innermost module that
        holds the nearest known operators before and after it.
        """
        known = [self._find(name) for name in names]
        before, after = _last_known(known), _last_known(known[::-1])[::-1]
        return [
            module if module is not None else _common(sides)
            for module, *sides in zip(known, before, after, strict=True)
        ]

    def _find(self, name: str) -> str | None:
        for end in range(len(name), 0, -1):
            if (end == len(name) or not _same_word(name, end)) and name[:end] in self.by_name:
                return self.by_name[name[:end]]
        return None


def _same_word(name: str, end: int) -> bool:
    """Return whether a name goes on after `end` in the middle of a word or a number."""
    return bool(_WORD.match(name[end])) and bool(_WORD.match(name[end - 1]))


def _last_known(modules: Sequence[str | None]) -> list[str]:
    last, found = "", []
    for module in modules:
        last = last if module is None else module
        found.append(last)
    return found


def read_modules(bundle: Bundle, role: str) -> Modules:
    """Return the modules of the float32 ONNX graph of a role.

    Raises NotAvailable if the bundle has no such graph, or if neither the graph nor the manifest states scopes.
    """
    import onnx

    artifact = bundle.find(role, "onnx", "fp32")
    proto = onnx.load(bundle.folder / artifact.file, load_external_data=False)
    model = ir.from_proto(proto)
    by_node = artifact.modules or scopes_of(model)
    if by_node is None:
        raise NotAvailable(f"{artifact.file}: its modules are not known: neither the file nor the manifest names them")
    by_name = dict(by_node)
    for node in model.graph:
        by_name |= {str(value.name): by_node.get(node_key(node), "") for value in node.outputs}
    return Modules(by_name)


def scopes_of(model: ir.Model) -> dict[str, str] | None:
    """Return what modules_by_node returns, for a graph that was just read from a file with scopes."""
    read_scopes(model)
    return modules_by_node(model)


def folded(total_ms: Mapping[str, float], most: int) -> dict[str, float]:
    """Return milliseconds by module, for at most `most` modules that together hold all of `total_ms`.

    Modules that take the most time are split into the modules inside them, as far as `most` allows.
    """
    open_at: dict[str, list[str]] = {"": list(total_ms)}
    while True:
        by_time = sorted(open_at, key=lambda module: -sum(total_ms[path] for path in open_at[module]))
        for module in by_time:
            parts = _opened(module, open_at[module])
            if parts.keys() != {module} and len(open_at) - 1 + len(parts) <= most:
                del open_at[module]
                for name, paths in parts.items():
                    open_at[name] = open_at.get(name, []) + paths
                break
        else:
            return {module: sum(total_ms[path] for path in open_at[module]) for module in by_time}


def _opened(module: str, paths: Sequence[str]) -> dict[str, list[str]]:
    """Group the paths inside a module by their next name. A path that ends at the module stays by itself."""
    depth = len(module.split(".")) if module else 0
    parts: dict[str, list[str]] = {}
    for path in paths:
        parts.setdefault(".".join(path.split(".")[: depth + 1]), []).append(path)
    return parts
