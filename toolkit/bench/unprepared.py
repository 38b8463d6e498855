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
    from graphs.onnx.source import read_source

    graph = bundle.find(role, "onnx", "fp32")
    weights = [a for a in bundle.artifacts if (a.role, a.format) == (role, "torch")]
    path = folder / NAME
    if weights:
        files, tools = save(_exported(bundle, weights[0]), path), ["torch", "onnxscript"]
    elif source is not None:
        with checked_source(bundle, source) as place:
            files, tools = save(read_source(bundle, place), path), ["onnx"]
    elif find_kind(bundle.model["kind"]).is_imported:
        raise NotAvailable(f"needs the file that was imported, {bundle.weights.source}: give it with --source")
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
        axes=None,
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


@contextmanager
def checked_source(bundle: Bundle, source: Path) -> Iterator[Path]:
    """Give, for a block, the path at which the file that a bundle was imported from can be read, see weights_beside.

    Raises InvalidInput unless `source` is that file.
    """
    from graphs.onnx.foreign import weights_beside
    from graphs.onnx.source import is_source

    if not find_kind(bundle.model["kind"]).is_imported:
        raise InvalidInput(f"--source {source}: {bundle.folder} was not imported; leave it out")
    if not source.is_file():
        raise InvalidInput(f"--source {source}: no such file")
    with weights_beside(source) as place:
        if not is_source(bundle, place):
            raise InvalidInput(
                f"--source {source}: not the file that {bundle.folder} was imported from, {bundle.weights.source}; "
                "give that, or import this one"
            )
        yield place
