"""Operator profiles of a bundle's files, summed by kind of operator and by module of the source."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import ToolkitError, one_line
from backends.profiling import OperatorTime, by_op_type, profile, summed_by
from backends.registry import BACKENDS, run_targets
from graphs.onnx.modules import Modules, read_modules
from toolkit.bench.result import FileProfile, ModuleTotal

# Each file runs for about this many seconds, but at least and at most so many times.
_SECONDS = 2.0
_RUNS = (3, 50)

# Kind of operator, as TFLite or XNNPACK calls it -> its family. Any other kind is a family by itself.
_SAME = {
    "CONVOLUTION": "CONV",
    "CONV_2D": "CONV",
    "DEPTHWISE_CONV_2D": "CONV",
    "DECONVOLUTION": "TRANSPOSE_CONV",
    "BATCH_MATRIX_MULTIPLY": "BATCH_MATMUL",
    "MULTIPLY": "MUL",
    "SUBTRACT": "SUB",
    "DIVIDE": "DIV",
    "SQUARE_ROOT": "SQRT",
    "RECIPROCAL_SQUARE_ROOT": "RSQRT",
    "MEAN_SQUARED": "MEAN",
    "NORMALIZE": "SUM",
    "STATIC_RESHAPE": "RESHAPE",
    "COPY": "RESHAPE",
    "SIGMOID": "LOGISTIC",
    "RELU": "CLAMP",
    "RELU6": "CLAMP",
    "CONSTANT_PAD": "PAD",
    "STATIC_CONSTANT_PAD": "PAD",
    "MIRROR_PAD": "PAD",
    "CONVERT": "QUANTIZE",
    "DEQUANTIZE": "QUANTIZE",
    "STRIDED_SLICE": "SLICE",
    "STATIC_SLICE": "SLICE",
    "CONCATENATE": "CONCATENATION",
    "BILINEAR_RESIZE": "RESIZE_BILINEAR",
    "MAX_POOLING": "MAX_POOL_2D",
    "AVERAGE_POOLING": "AVERAGE_POOL_2D",
}

# Families of operators that XNNPACK never fuses with each other: they hold the alignment in place.
_ANCHORS = ("CONV", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
_ANCHOR_WEIGHT = 16


def profile_files(
    bundle: Bundle, artifacts: Sequence[Artifact], medians_ms: Mapping[str, float], threads: int, progress: Progress
) -> tuple[FileProfile, ...]:
    """Profile every file on every backend that has a profiler, in each precision in which it runs.

    medians_ms: the milliseconds of one run by the name of the target, see RunTarget; a target without them is left out.
    A profiler that fails, or modules that cannot be determined, are explained in the profile's note.
    """
    found = []
    modules: dict[str, Modules | str] = {}
    for target in (target for artifact in artifacts for target in run_targets(artifact)):
        backend, artifact = BACKENDS.load(target.backend), target.artifact
        if backend.profile is None or target.name not in medians_ms:
            continue
        progress(f"{target.name}, operator by operator")
        runs = max(_RUNS[0], min(_RUNS[1], int(1e3 * _SECONDS / medians_ms[target.name])))
        path = bundle.verify(artifact)
        try:
            times = profile(path, backend.profile, threads, runs, artifact.precision)
        except ToolkitError as error:
            found.append(FileProfile(target.name, artifact.role, backend.package, (), (), one_line(error)))
            continue
        if artifact.role not in modules:
            modules[artifact.role] = _modules(bundle, artifact.role)
        known = modules[artifact.role]
        if isinstance(known, str):
            found.append(FileProfile(target.name, artifact.role, backend.package, by_op_type(times), (), known))
            continue
        by_module = tuple(
            ModuleTotal(*summed) for summed in summed_by(known.of_operators(_names(bundle, artifact, times)), times)
        )
        found.append(FileProfile(target.name, artifact.role, backend.package, by_op_type(times), by_module, ""))
    return tuple(found)


def _modules(bundle: Bundle, role: str) -> Modules | str:
    """Return the modules of a role's graph, or the reason why they cannot be determined."""
    if find_spec("onnx") is None:
        return "modules need the graph's names: `pip install onnx`"
    try:
        return read_modules(bundle, role)
    except ToolkitError as error:
        return one_line(error)


def _names(bundle: Bundle, artifact: Artifact, times: Sequence[OperatorTime]) -> list[str]:
    if artifact.format == "onnx":
        return [time.name for time in times]
    return operator_names(bundle.folder / artifact.file, [time.kind for time in times])


def operator_names(path: Path, kinds: Sequence[str]) -> list[str]:
    """Return, for each line of a profile, the name of the first output of its operator in the file at `path`.

    `kinds` are the operator kinds of the profile, in running order. The name is "" for a line that fits no operator.
    """
    from ai_edge_litert import schema_py_generated as schema

    from graphs.tflite.graph import read_graph

    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    nodes = read_graph(path).nodes
    outputs = [node.outputs[0].name if node.outputs and node.outputs[0] else "" for node in nodes]
    pairs = aligned([builtin.get(node.code[0], "") for node in nodes], kinds)
    return ["" if index is None else outputs[index] for index in pairs]


def aligned(file: Sequence[str], profile: Sequence[str]) -> list[int | None]:
    """Return, for each kind of a profile, the index of its operator in `file`, or None where no operator fits.

    Both lists are in running order, and so are the indices. The alignment with the highest sum over its pairs is taken:
    an operator that XNNPACK never fuses counts 16, any other operator 1.
    """
    ours, theirs = [_family(kind) for kind in file], [_family(kind) for kind in profile]
    # best[i][j]: the highest sum for ours[i:] and theirs[j:].
    best = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i in range(len(ours) - 1, -1, -1):
        row, below, worth, mine = best[i], best[i + 1], _worth(ours[i]), ours[i]
        for j in range(len(theirs) - 1, -1, -1):
            score = below[j] if below[j] > row[j + 1] else row[j + 1]
            if mine == theirs[j] and below[j + 1] + worth > score:
                score = below[j + 1] + worth
            row[j] = score
    pairs: list[int | None] = [None] * len(theirs)
    i = j = 0
    while i < len(ours) and j < len(theirs):
        if ours[i] == theirs[j] and best[i][j] == best[i + 1][j + 1] + _worth(ours[i]):
            pairs[j] = i
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _worth(family: str) -> int:
    return _ANCHOR_WEIGHT if family in _ANCHORS else 1


def _family(kind: str) -> str:
    """Return the family of a kind of operator: "Fully Connected (NC, F32) GEMM" is FULLY_CONNECTED."""
    name = re.sub(r"\W+", "_", kind.partition(" (")[0].strip()).upper()
    return _SAME.get(name, name)
