"""Makes the graphs just before and just after one pass of the export or the lowering."""

from pathlib import Path

import onnx_ir as ir
import torch
from safetensors.torch import load_file

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput, NotAvailable
from backends.registry import ARCHITECTURES
from graphs.export import export
from graphs.networks.spec import GraphSpec
from graphs.onnx.file import read, save
from graphs.onnx.modules import modules_by_node, set_modules
from graphs.passes.pipeline import run_pass
from graphs.passes.registry import find_pass, passes

_MARK = "@before"


def write_around_pass(
    bundle: Bundle, artifact: Artifact, name: str, folder: Path
) -> tuple[Path, Path, dict[str, str] | None]:
    """Write before.onnx and after.onnx into `folder`, for a float32 ONNX file of the bundle.

    Returns their paths, and the torch module of each node of before.onnx by the node's name (None if not known).
    For a pass of the export, the graph is exported again from the bundle's torch weights; for a pass of the lowering,
    it is the file itself. The earlier passes of the stage run first. A tensor has the same name in both graphs only if
    it is the same tensor. Raises InvalidInput for a file that is not float32 ONNX, an unknown pass, or a pass that
    changes nothing; NotAvailable if the export's torch weights are not in the bundle.
    """
    chosen = find_pass(name)
    if (artifact.format, artifact.precision) != ("onnx", "fp32"):
        raise InvalidInput(f"expected a float32 ONNX file for a pass, got {artifact.file}")
    model = _exported(bundle, artifact) if chosen.stage == "export" else _read(bundle, artifact)
    for step in passes(chosen.stage):
        if step.name == name:
            break
        model, _ = run_pass(step, model)
    before, after = folder / "before.onnx", folder / "after.onnx"
    modules = modules_by_node(model)
    save(model, before)
    names = _mark(model)
    model, changed = run_pass(chosen, model)
    if not changed:
        raise InvalidInput(f"pass {name} changes nothing in {artifact.file}")
    _unmark(model, names)
    save(model, after)
    return before, after, modules


def _read(bundle: Bundle, artifact: Artifact) -> ir.Model:
    """Read the graph of an artifact, and mark its nodes with their torch modules."""
    model = read(bundle.verify(artifact))
    set_modules(model, artifact.modules or {})
    return model


def _exported(bundle: Bundle, artifact: Artifact) -> ir.Model:
    """Export the graph from the bundle's torch weights, without any pass. Raises NotAvailable without them."""
    try:
        source = bundle.find(artifact.role, "torch", "fp32")
    except NotAvailable as error:
        raise NotAvailable(
            f"{bundle.folder}: no torch weights of {artifact.role} to export again; give the graph itself with --before"
        ) from error
    architecture = source.architecture
    assert architecture is not None  # every torch artifact has one
    with torch.device("meta"):
        module = ARCHITECTURES.load(architecture["name"])(architecture["config"])
    module.load_state_dict(load_file(bundle.verify(source)), assign=True)
    inputs, outputs = (tuple(binding.spec for binding in side) for side in (artifact.inputs, artifact.outputs))
    return export(module.eval(), GraphSpec(artifact.role, architecture["name"], None, inputs, outputs))


def _mark(model: ir.Model) -> set[str]:
    """Add a mark to the name of every tensor, and return the old names.

    No pass invents a marked name, so that a new tensor cannot get the name of a removed one.
    """
    names = set()
    for node in model.graph:
        for value in node.outputs:
            if value.name and not value.is_graph_output():
                names.add(value.name)
                value.name += _MARK
    return names


def _unmark(model: ir.Model, names: set[str]) -> None:
    """Remove the marks; rename new tensors that have one of the old `names`."""
    values = [value for node in model.graph for value in node.outputs if value.name and not value.is_graph_output()]
    for value in values:
        if value.name in names:
            value.name += "/new"
    for value in values:
        value.name = str(value.name).replace(_MARK, "")
