"""Modules of the source, by the nodes of a graph that come from them.

torch's exporters write the scope of every node: the newer one as metadata, the older one in the name of the node. The
scopes are read once, carried through every pass, and kept as {name of a node: path of its module} beside the file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from backends.bundle import Bundle
from backends.errors import NotAvailable

# In the metadata of a node: a Python list of the paths of its modules from the outside in, and the node itself.
_SCOPES = "pkg.torch.onnx.name_scopes"
_QUOTED = re.compile(r"'([^']*)'")

_MODULE = "module"  # in node.meta, which no file holds

_WORD = re.compile(r"[A-Za-z0-9]")


def read_scopes(model: ir.Model) -> None:
    """Mark each node with the path of its module, "" for the whole model, if scopes are in the graph.

    A node without a scope belongs to the innermost module that holds the nodes that read its outputs.
    """
    for node in model.graph:
        scopes = node.metadata_props.get(_SCOPES)
        module = _scope_in_name(node.name or "") if scopes is None else _innermost(_QUOTED.findall(scopes))
        if module is not None:
            node.meta[_MODULE] = module
    ModulesBefore(model).carry_to(model)


def set_modules(model: ir.Model, modules: Mapping[str, str]) -> None:
    """Mark the nodes of a graph by their names, as modules_by_node gave them."""
    for node in model.graph:
        if (module := modules.get(node_key(node))) is not None:
            node.meta[_MODULE] = module


def modules_by_node(model: ir.Model) -> dict[str, str] | None:
    """Return {name of a node: path of its module, with dots}, or None for a graph without scopes.

    A node without a name is called after its first output. "" is the whole model, and what belongs to no one module.
    """
    nodes = list(model.graph)
    if all(_MODULE not in node.meta for node in nodes):
        return None
    found: dict[str, list[str]] = {}
    for node in nodes:
        found.setdefault(node_key(node), []).append(node.meta.get(_MODULE, ""))
    return {name: _common(modules) for name, modules in found.items()}


def node_key(node: ir.Node) -> str:
    """Return the name of a node in modules_by_node."""
    return str(node.name or node.outputs[0].name)


def _innermost(scopes: Sequence[str]) -> str:
    return scopes[-2] if len(scopes) > 1 else ""


def _scope_in_name(name: str) -> str | None:
    """The path in "/layer1/layer1.0/conv1/Conv": layer1.0.conv1. None for another name."""
    if not name.startswith("/"):
        return None
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
        """Mark every node without a module, by one rule: it belongs to the innermost module that holds the nodes that
        it replaces; only to theirs of its own operator type, where there are such.

        A node replaces what made the tensor of its name before, or the first such tensor that is computed from its
        output, with all that only this was computed from. The names of tensors are what a pass keeps.
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
        """The first tensors from before that a new node leads to, and the modules of the old nodes that read it."""
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
        """The nodes from before that made these tensors, and the nodes that are gone and led to nothing but them."""
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
    """The innermost module that holds all of these."""
    shared: list[str] = []
    for parts in zip(*(module.split(".") for module in modules), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


@dataclass(frozen=True)
class Modules:
    """Node and value names of a graph -> paths of modules, with dots; "" is the whole model."""

    by_name: Mapping[str, str]

    def of_operators(self, names: Sequence[str]) -> list[str]:
        """Return the module of each operator in running order, by the name a runtime gives it.

        A runtime may add to a name: `conv_1_nchwc` is `conv_1`, and not `conv`. An operator that a runtime added lies
        in the innermost module that holds the known ones on both sides of it.
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
    """Whether a name goes on after `end` in the middle of a word or a number."""
    return bool(_WORD.match(name[end])) and bool(_WORD.match(name[end - 1]))


def _last_known(modules: Sequence[str | None]) -> list[str]:
    last, found = "", []
    for module in modules:
        last = last if module is None else module
        found.append(last)
    return found


def read_modules(bundle: Bundle, role: str) -> Modules:
    """Return the modules of the float32 graph of a role. Raises NotAvailable without that graph, or without scopes."""
    import onnx

    artifact = bundle.find(role, "onnx", "fp32")
    proto = onnx.load(bundle.folder / artifact.file, load_external_data=False)
    model = ir.from_proto(proto)
    by_node = artifact.modules or scopes_of(model)
    if by_node is None:
        raise NotAvailable(f"{artifact.file}: its modules are not known: neither it nor the manifest states scopes")
    by_name = dict(by_node)
    for node in model.graph:
        by_name |= {str(value.name): by_node.get(node_key(node), "") for value in node.outputs}
    return Modules(by_name)


def scopes_of(model: ir.Model) -> dict[str, str] | None:
    """Return modules_by_node of a graph as it was read from a file, by the scopes in that file."""
    read_scopes(model)
    return modules_by_node(model)


def folded(total_ms: Mapping[str, float], most: int) -> dict[str, float]:
    """Return milliseconds by module, of at most `most` modules that hold all of `total_ms`.

    The modules that take most of the time are split into the modules inside them as far as that allows.
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
    """The paths below a module by the next name of each; those that end at it stay."""
    depth = len(module.split(".")) if module else 0
    parts: dict[str, list[str]] = {}
    for path in paths:
        parts.setdefault(".".join(path.split(".")[: depth + 1]), []).append(path)
    return parts
