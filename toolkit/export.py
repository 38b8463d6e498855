"""A model with its weights becomes a bundle: ONNX graphs, torch weights, and the manifest."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact
from backends.registry import open_session
from backends.tensor import Array, Binding
from graphs.checkpoint import Weights
from graphs.export import build_loaded, export, probe, run_module, with_batch
from graphs.onnx_file import save
from graphs.prepare.pipeline import prepare
from graphs.spec import GraphSpec, ModelSpec
from toolkit.folders import replacing_bundle

Progress = Callable[[str], None]

# Max abs difference between ONNX Runtime and torch over the largest absolute output.
TOLERANCE = 1e-4
_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim")


def export_bundle(
    spec: ModelSpec, weights: Weights, folder: Path, batch: int = 1, progress: Progress = lambda step: None
) -> Bundle:
    """Export every network of a model into `folder`, in the place of an older bundle there.

    Makes ROLE.onnx and ROLE.safetensors for each role, and the manifest. Every ONNX file is run against torch first.
    `batch` is the first axis of every input and output. The same weights give the same bytes.
    Raises InvalidArtifact if a graph does not compute what its module does, InvalidInput for a folder in use.
    """
    source = {"origin": weights.origin, "sha256": weights.sha256, "source": weights.source}
    with replacing_bundle(folder) as building:
        bundle = Bundle(building, spec.description, source, ())
        for graph in spec.graphs:
            bundle = _export_graph(bundle, graph, weights, batch, progress)
        bundle.write()
    return Bundle.open(folder)


def _export_graph(bundle: Bundle, graph: GraphSpec, weights: Weights, batch: int, progress: Progress) -> Bundle:
    role = graph.role
    inputs = tuple(Binding.same(with_batch(spec, batch)) for spec in graph.inputs)
    outputs = tuple(Binding.same(with_batch(spec, batch)) for spec in graph.outputs)
    module = build_loaded(graph, weights.states[role])
    feeds = probe(tuple(binding.spec for binding in inputs))

    progress(f"{role}: tracing to ONNX")
    model = export(module, graph, batch)
    progress(f"{role}: simplifying and preparing the graph")
    model, _ = prepare(model, feeds)
    files = save(model, bundle.folder / f"{role}.onnx")
    state_path = bundle.folder / f"{role}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, state_path)
    state_path.chmod(files[0].stat().st_mode)  # safetensors makes private files

    onnx = Artifact(
        file=files[0].name,
        role=role,
        format="onnx",
        precision="fp32",
        route=None,
        inputs=inputs,
        outputs=outputs,
        sha256=sha256_of(*files),
        bytes=sum(path.stat().st_size for path in files),
        external_files=tuple(path.name for path in files[1:]),
        parent=None,
        tools={tool: version(tool) for tool in _TOOLS},
        architecture=None,
    )
    state = Artifact(
        file=state_path.name,
        role=role,
        format="torch",
        precision="fp32",
        route=None,
        inputs=inputs,
        outputs=outputs,
        sha256=sha256_of(state_path),
        bytes=state_path.stat().st_size,
        external_files=(),
        parent=None,
        tools={"torch": version("torch")},
        architecture=graph.architecture_json,
    )
    bundle = bundle.with_artifact(onnx).with_artifact(state)
    progress(f"{role}: comparing ONNX Runtime with torch")
    with open_session(bundle, onnx, "ort", threads=torch.get_num_threads()) as session:
        _compare(session.run(feeds), run_module(module, graph, feeds), role)
    return bundle


def _compare(got: dict[str, Array], expected: dict[str, Array], role: str) -> None:
    for name, value in expected.items():
        difference = float(np.abs(got[name] - value).max() / np.abs(value).max())
        if not difference <= TOLERANCE:
            raise InvalidArtifact(
                f"{role}: ONNX Runtime's {name!r} differs from torch's by {difference:.1e} of its range, "
                f"expected at most {TOLERANCE:.0e}"
            )
