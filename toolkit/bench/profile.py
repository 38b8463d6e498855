"""Operator profiles of a bundle's files, summed by kind of operator and by module of the source."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import ToolkitError, one_line
from backends.profiling import OperatorTime, by_op_type, profile, summed_by
from backends.registry import default_backend
from graphs.onnx.modules import Modules, read_modules
from graphs.tflite.align import operator_names
from toolkit.bench.result import FileProfile, ModuleTotal

# Each file runs for about this many seconds, but at least and at most so many times.
_SECONDS = 2.0
_RUNS = (3, 50)


def profile_files(
    bundle: Bundle, artifacts: Sequence[Artifact], medians_ms: Mapping[str, float], threads: int, progress: Progress
) -> tuple[FileProfile, ...]:
    """Profile every file whose default backend has a profiler. medians_ms: the milliseconds of one run by file.

    A profiler that fails, or modules that cannot be determined, are explained in the profile's note.
    """
    found = []
    modules: dict[str, Modules | str] = {}
    for artifact in artifacts:
        backend = default_backend(artifact.format)
        if backend.profile is None:
            continue
        progress(f"{artifact.file}, operator by operator")
        runs = max(_RUNS[0], min(_RUNS[1], int(1e3 * _SECONDS / medians_ms[artifact.file])))
        path = bundle.verify(artifact)
        try:
            times = profile(path, backend.profile, threads, runs)
        except ToolkitError as error:
            found.append(FileProfile(artifact.file, artifact.role, backend.package, (), (), one_line(error)))
            continue
        if artifact.role not in modules:
            modules[artifact.role] = _modules(bundle, artifact.role)
        known = modules[artifact.role]
        if isinstance(known, str):
            found.append(FileProfile(artifact.file, artifact.role, backend.package, by_op_type(times), (), known))
            continue
        by_module = tuple(
            ModuleTotal(*summed) for summed in summed_by(known.of_operators(_names(bundle, artifact, times)), times)
        )
        found.append(FileProfile(artifact.file, artifact.role, backend.package, by_op_type(times), by_module, ""))
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
