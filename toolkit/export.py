"""Exports a model to a bundle of ONNX and torch files; chooses its weights and compares ONNX Runtime with torch."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from backends.artifact import Artifact
from backends.atomic import replacing_folder
from backends.bundle import MANIFEST, Bundle, Progress, WeightsOrigin, learned_json, sha256_of
from backends.errors import InvalidArtifact, InvalidInput
from backends.machine import check_disk_space
from backends.registry import open_session
from backends.tensor import Array, Binding, probe
from graphs.checkpoint import State, Weights, load_checkpoint, random_weights
from graphs.export import build_loaded, export, run_module, with_batch
from graphs.networks.spec import GraphSpec, ModelSpec
from graphs.onnx.file import DataFile, check, external_name, save, weight_bytes
from graphs.onnx.modules import modules_by_node
from graphs.passes.pipeline import prepare

SHIPPED = Path(__file__).parent / "bundles"


def choose_weights(spec: ModelSpec, checkpoints: Sequence[Path] = (), seed: int | None = None) -> Weights:
    """Return the weights of checkpoint files, or random weights from a seed; with neither, those that ship.

    Raises InvalidInput if both are given, or if neither is given and no weights of this model ship with the package;
    and the errors of load_checkpoint.
    """
    if checkpoints and seed is not None:
        raise InvalidInput("weights: a checkpoint and random ones were both asked for; give one")
    if checkpoints:
        return load_checkpoint(checkpoints, spec)
    if seed is not None:
        return random_weights(seed, spec)
    folder = SHIPPED / spec.name
    if not (folder / MANIFEST).is_file():
        raise InvalidInput(
            f"{spec.name}: no weights ship with this package; download its checkpoint and give --checkpoint FILE, "
            "or take --random SEED for tests and timing"
        )
    bundle = Bundle.open(folder)
    states = {graph.role: load_file(bundle.verify(bundle.find(graph.role, "torch", "fp32"))) for graph in spec.graphs}
    return Weights(bundle.weights.origin, bundle.weights.source, bundle.weights.sha256, states)


# The largest absolute difference between ONNX Runtime and torch, divided by torch's largest absolute output.
TOLERANCE = 1e-4

# A graph with more weights is compared only once, after all passes: each comparison writes and loads all weights.
_STEPWISE_LIMIT_BYTES = 1 << 30

_SPARE_BYTES = 64 << 20
_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim")


def export_bytes(spec: ModelSpec, with_torch: bool = True) -> int:
    """Return the bytes of disk that an export of a model needs. with_torch: the torch weights are written as well."""
    once = sum(like.nbytes for like in spec.expected_state().values())
    return once * (2 if with_torch else 1) + _SPARE_BYTES


def export_bundle(
    spec: ModelSpec,
    weights: Weights,
    folder: Path,
    batch: int = 1,
    progress: Progress = lambda step: None,
    with_torch: bool = True,
) -> Bundle:
    """Export every graph of a model to a bundle in `folder`; an older bundle there is replaced.

    Writes ROLE.onnx, the torch weights as ROLE.safetensors (unless with_torch is false), and the manifest. Graphs of
    one NETWORK share NETWORK.safetensors and the external data NETWORK.onnx.data. The outputs of every ONNX file are
    compared with torch's. `batch` multiplies the first axis of every input and output. The same weights give the same
    bytes. Memory: the weights of the largest network, once, and what the runtimes need to run it.
    Raises InvalidArtifact if a graph's outputs differ from torch's by more than TOLERANCE, InvalidInput if the folder
    holds something other than a bundle, NotAvailable if the disk has too little space.
    """
    check_disk_space(folder, export_bytes(spec, with_torch))
    source = WeightsOrigin(weights.origin, weights.sha256, weights.source)
    with replacing_folder(folder, MANIFEST, "bundle") as building:
        description = spec.description | learned_json(weights.learned)
        bundle = Bundle(building, description, source, ())
        for network in spec.networks:
            shared = network[0].network and DataFile(building / external_name(f"{network[0].network}.onnx"))
            written = []
            for graph in network:
                feeds = probe(tuple(with_batch(tensor, batch) for tensor in graph.inputs))
                state = weights.states[graph.role]
                written.append(_write(bundle, graph, state, feeds, batch, shared or None, progress))
                if with_torch and graph is network[-1]:
                    torch_file = _write_torch(bundle, graph, state, written[0].files[0], progress)
                del state
                # Module and graph are reference cycles: collect them now, so that memory never holds two networks.
                gc.collect()
            for graph, done in zip(network, written, strict=True):
                onnx = _artifact(graph, batch, done.files, "onnx", _TOOLS, done.modules)
                bundle = bundle.with_artifact(onnx)
                if with_torch:
                    bundle = bundle.with_artifact(_artifact(graph, batch, (torch_file,), "torch", ("torch",)))
                progress(f"{graph.role}: comparing ONNX Runtime with torch")
                with open_session(bundle, onnx, "ort", threads=torch.get_num_threads()) as session:
                    _compare(session.run(done.feeds), done.expected, graph.role)
        bundle.write()
    return Bundle.open(folder)


@dataclass(frozen=True)
class _Written:
    """A graph's files, the torch modules of its nodes by name, and torch's outputs for the inputs `feeds`."""

    files: tuple[Path, ...]
    modules: dict[str, str] | None
    feeds: dict[str, Array]
    expected: dict[str, Array]


def _write(
    bundle: Bundle,
    graph: GraphSpec,
    state: State,
    feeds: dict[str, Array],
    batch: int,
    shared: DataFile | None,
    progress: Progress,
) -> _Written:
    """Write one graph's ONNX file; its large weights go to the file `shared`, if there is one."""
    role = graph.role
    module = build_loaded(graph, state)
    progress(f"{role}: running torch")
    expected = run_module(module, graph, feeds)
    progress(f"{role}: tracing to ONNX")
    model = export(module, graph, batch)
    progress(f"{role}: simplifying and preparing the graph")
    model, _ = prepare(model, feeds, stepwise=weight_bytes(model) <= _STEPWISE_LIMIT_BYTES)
    progress(f"{role}: writing {weight_bytes(model) / 1e6:.0f} MB of ONNX")
    path = bundle.folder / f"{role}.onnx"
    files = save(model, path) if shared is None else shared.save(model, path)
    check(path)
    return _Written(files, modules_by_node(model), feeds, expected)


def _write_torch(bundle: Bundle, graph: GraphSpec, state: State, like: Path, progress: Progress) -> Path:
    """Write a network's weights, with the file mode of `like`: safetensors makes files that only the owner can read."""
    name = graph.network or graph.role
    progress(f"{name}: writing the torch weights")
    path = bundle.folder / f"{name}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    path.chmod(like.stat().st_mode)
    return path


def _artifact(
    graph: GraphSpec,
    batch: int,
    files: tuple[Path, ...],
    format: str,
    tools: tuple[str, ...],
    modules: dict[str, str] | None = None,
) -> Artifact:
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
        modules=modules,
    )


def _compare(got: dict[str, Array], expected: dict[str, Array], role: str) -> None:
    for name, value in expected.items():
        difference = float(np.abs(got[name] - value).max() / np.abs(value).max())
        if not difference <= TOLERANCE:
            raise InvalidArtifact(
                f"{role}: ONNX Runtime's {name!r} differs from torch's by {difference:.1e} of its range, "
                f"expected at most {TOLERANCE:.0e}"
            )
