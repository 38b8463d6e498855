"""Calls of C++ code, ONNX Runtime and onnxsim, that a file of any origin may crash: they run in a child process.

This module imports little, so that the child starts soon.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from backends.errors import InvalidArtifact, InvalidInput, one_line
from backends.tensor import Array

Feeds = Sequence[Mapping[str, Array]]
Outputs = list[dict[str, Array]]


def run(path: Path, feeds: Feeds, cut_at: Sequence[str] = ()) -> Outputs:
    """Run an ONNX file on ONNX Runtime. Returns its outputs by name for each of `feeds`.

    cut_at: the names of tensors to return in place of the outputs; the nodes behind them do not run.
    Raises InvalidArtifact if ONNX Runtime cannot run it, and InvalidInput if an output is not a tensor (a sequence, or
    an absent optional value).
    """
    try:
        session = _session(path, cut_at)
        names = [output.name for output in session.get_outputs()]
        results = [session.run(names, dict(feed)) for feed in feeds]
    except Exception as error:  # ONNX Runtime's errors have no common base class but Exception
        raise InvalidArtifact(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot run it: {one_line(error)}"
        ) from error
    for name, value in zip(names, results[0], strict=True):
        if not isinstance(value, np.ndarray):
            raise InvalidInput(f"{path}: output {name!r}: expected a tensor, got {type(value).__name__}")
    return [dict(zip(names, result, strict=True)) for result in results]


def sizes_by_runtime(path: Path) -> dict[str, list[int | str | None]]:
    """Return the sizes of a file's outputs by name, as far as ONNX Runtime infers them: None or a name for others."""
    return {output.name: list(output.shape) for output in _session(path).get_outputs()}


def cut_model(path: Path, cut_at: Sequence[str]) -> onnx.ModelProto:
    """Read an ONNX file without its external data, with the tensors `cut_at` as outputs and no node behind them."""
    model = onnx.load(path, load_external_data=False)
    stated = {value.name: value for value in (*model.graph.output, *model.graph.value_info)}
    needed, kept = set(cut_at), []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(read_names(node))
    outputs = [stated.get(name) or onnx.ValueInfoProto(name=name) for name in cut_at]
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(reversed(kept))
    model.graph.output.extend(outputs)
    return model


def read_names(node: onnx.NodeProto) -> list[str]:
    """Return the names of the tensors that a node may read, those inside its subgraphs too."""
    inner = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    # A result of a subgraph may be a tensor from outside.
    names = [name for graph in inner for one in graph.node for name in read_names(one)]
    return [*node.input, *names, *(value.name for graph in inner for value in graph.output)]


def _session(path: Path, cut_at: Sequence[str] = ()) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not cut_at:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    folder = str(path.resolve().parent)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    model = cut_model(path, cut_at).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load_onnxsim() -> None:
    """Import onnxsim without torch, which onnxsim imports if it can, in two seconds; this process has no torch then."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # makes `import torch` fail
    import onnxsim  # noqa: F401


def run_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify a model in this process. Raises RuntimeError or ValueError if onnxsim fails."""
    import onnxsim  # imports torch if it is installed; a conversion imports this module and needs neither

    simplified: onnx.ModelProto = onnxsim.simplify(model, check_n=0)[0]
    return simplified
