"""Where the time of a bundle's files goes: by kind of operator, and by module of the source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import ToolkitError, one_line
from backends.profiling import OperatorTime, OpTypeTotal, by_op_type, profile, summed_by
from graphs.onnx.modules import Modules, read_modules
from graphs.tflite.align import operator_names

# Of each file: about two seconds of runs, within these.
_SECONDS = 2.0
_RUNS = (3, 50)


@dataclass(frozen=True)
class ModuleTotal:
    """All operators of one module: its path with dots, "" for those of no one module; the rest as in Kind."""

    module: str
    count: int
    total_ms: float
    share: float


@dataclass(frozen=True)
class FileProfile:
    """One file. by_module is empty, and note says why, where modules cannot be told; both, where nothing can."""

    file: str
    role: str
    runtime: str
    by_kind: tuple[OpTypeTotal, ...]
    by_module: tuple[ModuleTotal, ...]
    note: str


def profile_files(
    bundle: Bundle, artifacts: Sequence[Artifact], medians_ms: Mapping[str, float], threads: int, progress: Progress
) -> tuple[FileProfile, ...]:
    """Profile every ONNX and TFLite file. medians_ms: by file, what a run takes."""
    found = []
    modules: dict[str, Modules | str] = {}
    for artifact in artifacts:
        if artifact.format == "torch":
            continue
        progress(f"{artifact.file}, operator by operator")
        runtime = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}[artifact.format]
        runs = max(_RUNS[0], min(_RUNS[1], int(1e3 * _SECONDS / medians_ms[artifact.file])))
        path = bundle.verify(artifact)
        try:
            times = profile(path, threads, runs)
        except ToolkitError as error:
            found.append(FileProfile(artifact.file, artifact.role, runtime, (), (), one_line(error)))
            continue
        if artifact.role not in modules:
            modules[artifact.role] = _modules(bundle, artifact.role)
        known = modules[artifact.role]
        if isinstance(known, str):
            found.append(FileProfile(artifact.file, artifact.role, runtime, by_op_type(times), (), known))
            continue
        by_module = tuple(
            ModuleTotal(*summed) for summed in summed_by(known.of_operators(_names(bundle, artifact, times)), times)
        )
        found.append(FileProfile(artifact.file, artifact.role, runtime, by_op_type(times), by_module, ""))
    return tuple(found)


def _modules(bundle: Bundle, role: str) -> Modules | str:
    """The modules of a role's graph, or why they cannot be told."""
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
