"""Is a file that was made to be quick as quick as float32? And if not, which operators take the time?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable
from backends.machine import default_threads
from backends.profiling import OperatorTime, by_op_type, profile
from backends.registry import default_backend, open_session
from backends.session import Session
from backends.tensor import Array, probe

_BUDGET_S = 2.0  # for one pair of files, beside loading them
_ROUNDS = (3, 40)
_PROFILED_RUNS = 5
# Pairs beyond this are not opened together: both and what their runtimes unpack would be in memory at once.
_TOGETHER_BYTES = 1 << 30
_BLAMED = 3
# Less than this is 1.00x where it is read.
_SHOWN = 1.005


@dataclass(frozen=True)
class Speed:
    """A file's time over that of float32, `over`, on the same runtime: the median of runs side by side.

    slower: whether three of four runs were slower, and the ratio is shown as more than one. blame: operator kind ->
    milliseconds that it takes more of than in the float32 file, the most first; only of what is slower, and empty where
    the runtime does not tell.
    """

    file: str
    over: str
    ratio: float
    slower: bool
    blame: tuple[tuple[str, float], ...]


def compare_speed(bundle: Bundle, artifacts: Sequence[Artifact], progress: Progress) -> tuple[Speed, ...]:
    """Time every file that is not float32 beside the float32 file of its runtime, on all cores.

    Without one for TFLite in the bundle, the ONNX file on ONNX Runtime is what it is held to.
    """
    found = []
    for artifact in artifacts:
        if artifact.precision != "fp32":
            reference = _float32(bundle, artifact)
            progress(f"timing {artifact.file} beside {reference.file}")
            ratios = _ratios(bundle, artifact, reference)
            slower = bool(np.quantile(ratios, 0.25) > 1 and np.median(ratios) >= _SHOWN)
            blame = _blame(bundle, artifact, reference, progress) if slower else ()
            found.append(Speed(artifact.file, reference.file, float(np.median(ratios)), slower, blame))
    return tuple(found)


def _float32(bundle: Bundle, artifact: Artifact) -> Artifact:
    """The float32 file of the same role and runtime; of two routes, the artifact's own."""
    wanted = (artifact.role, artifact.format, "fp32", artifact.route)
    found = [a for a in bundle.artifacts if (a.role, a.format, a.precision, a.route) == wanted]
    return found[0] if found else bundle.find(artifact.role, "onnx", "fp32")


def _ratios(bundle: Bundle, artifact: Artifact, reference: Artifact) -> Array:
    feeds = probe(tuple(binding.spec for binding in artifact.inputs))
    if artifact.bytes + reference.bytes > _TOGETHER_BYTES:
        times = []
        for one in (artifact, reference):
            with _opened(bundle, one) as alone:
                alone.run(feeds)
                times.append(np.sort([_timed(alone, feeds) for _ in range(_ROUNDS[0])]))
        apart: Array = times[0] / times[1]
        return apart
    ratios: list[float] = []
    with _opened(bundle, artifact) as mine, _opened(bundle, reference) as theirs:
        end = time.perf_counter() + _BUDGET_S
        while len(ratios) < _ROUNDS[0] or (len(ratios) < _ROUNDS[1] and time.perf_counter() < end):
            pair = []
            for session in (mine, theirs):
                session.run(feeds)  # the other's threads may still spin, and its weights fill the caches
                pair.append(_timed(session, feeds))
            ratios.append(pair[0] / pair[1])
    return np.array(ratios)


def _opened(bundle: Bundle, artifact: Artifact) -> Session:
    return open_session(bundle, artifact, default_backend(artifact.format).name, default_threads())


def _timed(session: Session, feeds: dict[str, Array]) -> float:
    start = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - start


def _profiled(bundle: Bundle, artifact: Artifact) -> tuple[OperatorTime, ...]:
    profiler = default_backend(artifact.format).profile
    return profile(bundle.folder / artifact.file, profiler, default_threads(), _PROFILED_RUNS)


def _blame(
    bundle: Bundle, artifact: Artifact, reference: Artifact, progress: Progress
) -> tuple[tuple[str, float], ...]:
    """The kinds of operators whose time has grown, by their milliseconds."""
    progress(f"asking which operators make {artifact.file} slow")
    try:
        mine, theirs = ({k.kind: k.total_ms for k in by_op_type(_profiled(bundle, a))} for a in (artifact, reference))
    except NotAvailable:
        return ()  # that it is slower is what must be said
    grown = {kind: ms - theirs.get(kind, 0.0) for kind, ms in mine.items()}
    most = sorted(grown, key=lambda kind: -grown[kind])[:_BLAMED]
    return tuple((kind, grown[kind]) for kind in most if grown[kind] > 0)
