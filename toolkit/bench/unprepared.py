"""Unprepared graphs: exported or imported, but neither simplified nor prepared. Peers run them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidInput, NotAvailable
from backends.registry import ARCHITECTURES
from graphs.networks.spec import GraphSpec
from toolkit.models.kind import find_kind

NAME = "exported.onnx"


def write_unprepared(bundle: Bundle, role: str, folder: Path, source: Path | None) -> Artifact:
    """Write the unprepared float32 graph of a role into `folder`, and return its artifact, for a bundle in `folder`.

    If the bundle has torch weights, torch's exporter writes the graph. For an imported bundle, the graph is `source`,
    the imported file, with the input shapes and the opset of the import.
    Raises NotAvailable without torch weights and source, InvalidInput if `source` is another file.
    """
    from graphs.onnx.file import save

    graph = bundle.find(role, "onnx", "fp32")
    weights = [a for a in bundle.artifacts if (a.role, a.format) == (role, "torch")]
    path = folder / NAME
    if weights:
        files, tools = save(_exported(bundle, weights[0]), path), ["torch", "onnxscript"]
    elif source is not None:
        with checked_source(bundle, source) as place:
            files, tools = save(_imported(bundle, graph, place), path), ["onnx"]
    elif find_kind(bundle.model["kind"]).is_imported:
        raise NotAvailable(f"needs the file that was imported, {bundle.weights['source']}: give it with --source")
    else:
        raise NotAvailable("needs the torch weights, which this bundle does not have")
    return replace(
        graph,
        file=path.name,
        sha256=sha256_of(*files),
        bytes=sum(file.stat().st_size for file in files),
        external_files=tuple(file.name for file in files[1:]),
        parent=None,
        modules=None,
        tools={tool: version(tool) for tool in tools},
    )


def _exported(bundle: Bundle, weights: Artifact) -> Any:
    from safetensors.torch import load_file

    from graphs.export import export

    assert weights.architecture is not None  # torch files have one
    module = ARCHITECTURES.load(weights.architecture["name"])(weights.architecture["config"])
    module.load_state_dict(load_file(bundle.verify(weights)))
    graph = GraphSpec(
        weights.role,
        weights.architecture["name"],
        None,
        tuple(binding.spec for binding in weights.inputs),
        tuple(binding.spec for binding in weights.outputs),
    )
    return export(module.eval(), graph)


def _imported(bundle: Bundle, graph: Artifact, source: Path) -> Any:
    from graphs.onnx.foreign import constants_of, read_foreign
    from graphs.onnx.source import given_values

    shapes = {binding.spec.name: binding.spec.shape for binding in graph.inputs}
    model = read_foreign(source, shapes, constants_of(source, given_values(bundle)))
    # The bundle has neither inputs that nothing reads nor outputs that nothing computes.
    names = {binding.spec.name for binding in graph.outputs}
    kept = [value for value in dict.fromkeys(model.graph.outputs) if value.name in names]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    for value in [value for value in model.graph.inputs if not value.uses()]:
        model.graph.inputs.remove(value)
    return model


@contextmanager
def checked_source(bundle: Bundle, source: Path) -> Iterator[Path]:
    """Give, for a block, the path at which the file that a bundle was imported from can be read, see weights_beside.

    Raises InvalidInput unless `source` is that file.
    """
    from graphs.onnx.foreign import external_files, weights_beside

    if not find_kind(bundle.model["kind"]).is_imported:
        raise InvalidInput(f"--source {source}: {bundle.folder} was not imported; leave it out")
    if not source.is_file():
        raise InvalidInput(f"--source {source}: no such file")
    with weights_beside(source) as place:
        if sha256_of(place, *external_files(place)) != bundle.weights["sha256"]:
            raise InvalidInput(
                f"--source {source}: not the file that {bundle.folder} was imported from, {bundle.weights['source']}; "
                "give that, or import this one"
            )
        yield place
