"""Does an imported graph compute what the file does? Both are run; the file by onnx's reference, if no runtime can."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from backends.errors import InvalidArtifact, InvalidInput, one_line
from backends.tensor import Array
from toolkit.convert.trial import Trial, TrialEnded

# Max abs difference over the range of the output, as for our own exports.
TOLERANCE = 1e-4
# Loading a graph of gigabytes and running it a few times is far from it.
TIMEOUT_S = 3600.0

Feeds = Sequence[Mapping[str, Array]]
Outputs = list[dict[str, Array]]


def outputs_of_source(source: Path, feeds: Feeds, note: Callable[[str], None]) -> Outputs:
    """What a file gives for some inputs, each a map from names to arrays, on ONNX Runtime.

    Where that cannot run it, the onnx package's reference implementation does, which `note` is told.
    Raises InvalidArtifact if neither can, or if it gives other outputs for the same inputs.
    """
    try:
        outputs = _run_apart(source, [*feeds, feeds[0]])
    except InvalidArtifact as error:
        outputs = _run_by_reference(source, [*feeds, feeds[0]], error)
        note(f"{error}; what it becomes was held to onnx's reference implementation instead")
    if found := difference(outputs[:1], outputs[-1:]):
        raise InvalidArtifact(
            f"{source}: the same inputs give other outputs each time ({found}): a graph that draws random numbers "
            "cannot be compared with anything"
        )
    return outputs[:-1]


def run(path: Path, feeds: Feeds) -> Outputs:
    """The outputs for each of some inputs, on ONNX Runtime.

    Raises InvalidArtifact if it cannot, and InvalidInput for an output that is no tensor: a sequence, or nothing.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        results = [session.run(names, dict(feed)) for feed in feeds]
    except Exception as error:  # the runtime's errors share no base class of their own
        raise InvalidArtifact(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot run it: {one_line(error)}"
        ) from error
    for name, value in zip(names, results[0], strict=True):
        if not isinstance(value, np.ndarray):
            raise InvalidInput(f"{path}: output {name!r}: expected a tensor, got {type(value).__name__}")
    return [dict(zip(names, result, strict=True)) for result in results]


def _run_apart(path: Path, feeds: Feeds) -> Outputs:
    """`run` in a process of its own: the file is anybody's, and on some ONNX Runtime ends the whole process."""
    with Trial(Path(os.devnull), TIMEOUT_S) as trial:
        try:
            return trial.call(run, path, feeds)
        except TrialEnded as ended:
            raise InvalidArtifact(
                f"{path}: ONNX Runtime {onnxruntime.__version__} does not survive it: the process that ran it {ended}"
            ) from ended


def _run_by_reference(source: Path, feeds: Feeds, why: InvalidArtifact) -> Outputs:
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(onnx.load(source))
            names = list(evaluator.output_names)
            results = [evaluator.run(names, dict(feed)) for feed in feeds]
    except Exception as error:  # an evaluator of plain Python raises anything
        raise why from error
    return [dict(zip(names, (np.asarray(value) for value in result), strict=True)) for result in results]


def difference(expected: Sequence[Mapping[str, Array]], got: Sequence[Mapping[str, Array]]) -> str | None:
    """The first output that is not the same, NaN in the same places, up to TOLERANCE of its range; None if all are."""
    for theirs, ours in zip(expected, got, strict=True):
        for name, value in theirs.items():
            other = ours[name]
            if other.shape != value.shape or other.dtype != value.dtype:
                return f"{name!r} is {other.dtype} {other.shape}, expected {value.dtype} {value.shape}"
            if value.dtype.kind != "f":
                if not np.array_equal(value, other):
                    return f"{name!r} has other {value.dtype} values"
                continue
            a, b = value.astype(np.float64), other.astype(np.float64)
            finite = np.isfinite(a)
            if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
                return f"{name!r} has NaN or infinity in other places"
            if finite.any():
                scale = max(float(np.ptp(a[finite])), float(np.abs(a[finite]).max()), 1e-12)
                moved = float(np.abs(a[finite] - b[finite]).max()) / scale
                if not moved <= TOLERANCE:
                    return f"{name!r} moved by {moved:.1e} of its range, expected at most {TOLERANCE:.0e}"
    return None
