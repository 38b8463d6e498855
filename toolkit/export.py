"""A model with its weights becomes a bundle: ONNX graphs, torch weights, and the manifest."""

import gc
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
from graphs.checkpoint import State, Weights
from graphs.export import build_loaded, export, probe, run_module, with_batch
from graphs.model_spec import GraphSpec, ModelSpec
from graphs.onnx_file import check, save, weight_bytes
from graphs.prepare.pipeline import prepare
from toolkit.folders import replacing_bundle

Progress = Callable[[str], None]

# Max abs difference between ONNX Runtime and torch over the largest absolute output.
TOLERANCE = 1e-4
# A larger graph is compared once, whole, and not after every pass: each time its weights are written and loaded.
_STEPWISE_LIMIT_BYTES = 1 << 30
_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim")


def export_bundle(
    spec: ModelSpec,
    weights: Weights,
    folder: Path,
    batch: int = 1,
    progress: Progress = lambda step: None,
    with_torch: bool = True,
) -> Bundle:
    """Export every network of a model into `folder`, in the place of an older bundle there.

    Makes ROLE.onnx, ROLE.safetensors (unless with_torch is false) and the manifest. Every ONNX file is run against
    torch first. `batch` is the first axis of every input and output. The same weights give the same bytes.
    Memory: the weights of the largest network, once, and what the runtimes need to run it.
    Raises InvalidArtifact if a graph does not compute what its module does, InvalidInput for a folder in use.
    """
    source = {"origin": weights.origin, "sha256": weights.sha256, "source": weights.source}
    with replacing_bundle(folder) as building:
        bundle = Bundle(building, spec.description, source, ())
        for graph in spec.graphs:
            feeds = probe(tuple(with_batch(tensor, batch) for tensor in graph.inputs))
            made, expected = _write(bundle, graph, weights.states[graph.role], feeds, progress, with_torch)
            for artifact in made:
                bundle = bundle.with_artifact(artifact)
            progress(f"{graph.role}: comparing ONNX Runtime with torch")
            # Module and graph refer to themselves; they go before the runtime comes, so that the two never hold their
            # weights at the same time.
            gc.collect()
            with open_session(bundle, made[0], "ort", threads=torch.get_num_threads()) as session:
                _compare(session.run(feeds), expected, graph.role)
        bundle.write()
    return Bundle.open(folder)


def _write(
    bundle: Bundle, graph: GraphSpec, state: State, feeds: dict[str, Array], progress: Progress, with_torch: bool
) -> tuple[list[Artifact], dict[str, Array]]:
    """Write one network's files. Returns their artifacts, ONNX first, and what torch makes of `feeds`."""
    role = graph.role
    module = build_loaded(graph, state)
    batch = next(iter(feeds.values())).shape[0]
    progress(f"{role}: running torch")
    expected = run_module(module, graph, feeds)
    progress(f"{role}: tracing to ONNX")
    model = export(module, graph, batch)
    progress(f"{role}: simplifying and preparing the graph")
    model, _ = prepare(model, feeds, stepwise=weight_bytes(model) <= _STEPWISE_LIMIT_BYTES)
    progress(f"{role}: writing {weight_bytes(model) / 1e6:.0f} MB of ONNX")
    path = bundle.folder / f"{role}.onnx"
    onnx = _artifact(graph, batch, save(model, path), "onnx", _TOOLS)
    check(path)
    if not with_torch:
        return [onnx], expected
    progress(f"{role}: writing the torch weights")
    state_path = bundle.folder / f"{role}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, state_path)
    state_path.chmod(path.stat().st_mode)  # safetensors makes private files
    return [onnx, _artifact(graph, batch, (state_path,), "torch", ("torch",))], expected


def _artifact(graph: GraphSpec, batch: int, files: tuple[Path, ...], format: str, tools: tuple[str, ...]) -> Artifact:
    return Artifact(
        file=files[0].name,
        role=graph.role,
        format=format,
        precision="fp32",
        route=None,
        inputs=tuple(Binding.same(with_batch(spec, batch)) for spec in graph.inputs),
        outputs=tuple(Binding.same(with_batch(spec, batch)) for spec in graph.outputs),
        sha256=sha256_of(*files),
        bytes=sum(path.stat().st_size for path in files),
        external_files=tuple(path.name for path in files[1:]),
        parent=None,
        tools={tool: version(tool) for tool in tools},
        architecture=graph.architecture_json if format == "torch" else None,
    )


def _compare(got: dict[str, Array], expected: dict[str, Array], role: str) -> None:
    for name, value in expected.items():
        difference = float(np.abs(got[name] - value).max() / np.abs(value).max())
        if not difference <= TOLERANCE:
            raise InvalidArtifact(
                f"{role}: ONNX Runtime's {name!r} differs from torch's by {difference:.1e} of its range, "
                f"expected at most {TOLERANCE:.0e}"
            )
