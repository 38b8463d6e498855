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


def run(path: Path, feeds: Feeds) -> Outputs:
    """Run an ONNX file on ONNX Runtime. Returns its outputs by name for each of `feeds`.

    Raises InvalidArtifact if ONNX Runtime cannot run it, and InvalidInput if an output is not a tensor (a sequence, or
    an absent optional value).
    """
    try:
        session = _session(path)
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


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load_onnxsim() -> None:
    """Import onnxsim without torch, which onnxsim imports if it can, in two seconds; this process has no torch then."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # makes `import torch` fail
    import onnxsim  # noqa: F401


def run_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify a model in this process. Raises RuntimeError or ValueError if onnxsim fails."""
    import onnxsim  # imports torch if it is installed; a conversion imports this module and needs neither

    simplified: onnx.ModelProto = onnxsim.simplify(model, check_n=0)[0]
    return simplified
