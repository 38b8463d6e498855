"""Which module of the source an operator comes from, by the names that survive export, preparing and lowering.

A graph keeps no scopes, but weights keep the names that their module gave them, and runtimes name operators after the
graph's nodes and values. An operator that has a weight belongs to the weight's module; one without belongs to the
innermost module that holds both those before and those after it, in running order; before the first and after the
last is the whole model.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.bundle import Bundle

# What torch's own layers call their parameters: for graphs whose checkpoint is not here.
_PARAMETER = re.compile(r"(?P<module>\w[\w.]*)\.(weight|bias|gamma|beta|running_mean|running_var)(?![A-Za-z0-9])")

_WORD = re.compile(r"[A-Za-z0-9]")


@dataclass(frozen=True)
class Modules:
    """Node and value names of a graph -> paths of modules, with dots; "" is the whole model."""

    by_name: Mapping[str, str]

    def of_operators(self, names: Sequence[str]) -> list[str]:
        """The module of each operator in running order, by the name a runtime gives it; "" where it gives none.

        A runtime may add to a name: `conv_1_nchwc` is `conv_1`, and not `conv`.
        """
        return between([self._find(name) for name in names])

    def _find(self, name: str) -> str | None:
        for end in range(len(name), 0, -1):
            if (end == len(name) or not _same_word(name, end)) and name[:end] in self.by_name:
                return self.by_name[name[:end]]
        return None


def _same_word(name: str, end: int) -> bool:
    """Whether a name goes on after `end` in the middle of a word or a number."""
    return bool(_WORD.match(name[end])) and bool(_WORD.match(name[end - 1]))


def read_modules(bundle: Bundle, role: str) -> Modules:
    """The modules of the float32 graph of a role. Raises NotAvailable without that graph."""
    import onnx

    graph = onnx.load(bundle.folder / bundle.find(role, "onnx", "fp32").file, load_external_data=False).graph
    weights = [a for a in bundle.artifacts if (a.role, a.format) == (role, "torch")]
    parameters = _parameters(bundle.folder / weights[0].file) if weights else None
    return modules_of(
        [(node.name, list(node.input), list(node.output)) for node in graph.node],
        {tensor.name for tensor in graph.initializer},
        parameters,
    )


def modules_of(
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    weights: Collection[str],
    parameters: Collection[str] | None,
) -> Modules:
    """Modules of a graph's nodes, each (name, inputs, outputs) in running order.

    weights: the names of the graph's constants. parameters: the names of the checkpoint's tensors, which those of the
    constants begin with; None where nobody has them.
    """
    known = []
    for name, inputs, _ in nodes:
        found = [module for given in inputs if given in weights and (module := _owner(given, parameters)) is not None]
        known.append(_common(found) if found else _scope(name))
    by_name: dict[str, str] = {}
    for (name, _, outputs), module in zip(nodes, between(known), strict=True):
        by_name |= {key: module for key in (name, *outputs) if key}
    return Modules(by_name)


def between(modules: Sequence[str | None]) -> list[str]:
    """The same, and in the place of each None the innermost module that holds the next known ones on both sides."""
    before, after = _carried(modules), _carried(modules[::-1])[::-1]
    return [
        module if module is not None else _common(sides) for module, *sides in zip(modules, before, after, strict=True)
    ]


def _carried(modules: Sequence[str | None]) -> list[str]:
    last, found = "", []
    for module in modules:
        last = last if module is None else module
        found.append(last)
    return found


def _common(modules: Iterable[str]) -> str:
    paths = [module.split(".") for module in modules]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _owner(weight: str, parameters: Collection[str] | None) -> str | None:
    """The module whose parameter a constant is, or was made of."""
    if parameters is None:
        match = _PARAMETER.match(weight)
        return match["module"] if match else None
    for end in range(len(weight), 0, -1):
        if (end == len(weight) or not _same_word(weight, end)) and weight[:end] in parameters:
            return weight[:end].rpartition(".")[0]
    return None


def _scope(name: str) -> str | None:
    """From a node's own name, as torch's older exporter writes it: "/layer1/layer1.0/conv1/Conv"."""
    if not name.startswith("/") or name.count("/") < 2:
        return None
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


def _parameters(path: Path) -> frozenset[str]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return frozenset(file.keys())


def folded(total_ms: Mapping[str, float], most: int) -> dict[str, float]:
    """At most `most` modules that hold all of them: where the time is, they are opened as far as that allows."""
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
