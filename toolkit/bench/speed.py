"""The speed of each file over the float32 file of its runtime, and the operators that make a file slower."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable
from backends.machine import default_threads
from backends.profiling import OperatorTime, by_op_type, profile
from backends.registry import default_backend
from backends.timing import Quartiles, Rounds, time_rounds
from toolkit.bench.rounds import fits_memory, measure_rows
from toolkit.bench.together import BenchTarget, target_row

# For one pair of files: two seconds if both are open at once, three runs of each if not.
_TOGETHER = Rounds(2.0, warm_ups=0, least=3, most=40, until_steady=False)
_APART = Rounds(0.0, warm_ups=0, least=3, most=3, until_steady=False)
# The files of a larger pair are opened one after the other: both, with the runtimes' unpacked copies, may fill memory.
_TOGETHER_BYTES = 1 << 30
_PROFILED_RUNS = 5
_BLAMED = 3
# The smallest ratio that is not printed as 1.00x.
_SHOWN = 1.005


@dataclass(frozen=True)
class Speed:
    """The median ratio of a file's time over that of the float32 file `over`, from runs side by side.

    slower: whether three of four runs were slower and the ratio is printed as more than 1. blame: for a slower file, up
    to three pairs of an operator kind and the milliseconds that it takes more than in the float32 file, the largest
    first; empty without a profile.
    """

    file: str
    over: str
    ratio: float
    slower: bool
    blame: tuple[tuple[str, float], ...]


def compare_speed(bundle: Bundle, artifacts: Sequence[Artifact], progress: Progress) -> tuple[Speed, ...]:
    """Time every file that is not float32 beside the float32 file of its format, on all cores.

    Without a float32 file of its format, the reference is the float32 ONNX file.
    """
    found = []
    for artifact in artifacts:
        if artifact.precision != "fp32":
            reference = _float32(bundle, artifact)
            progress(f"timing {artifact.file} beside {reference.file}")
            ratio = _ratio(bundle, artifact, reference)
            slower = ratio.low > 1 and ratio.median >= _SHOWN
            blame = _blame(bundle, artifact, reference, progress) if slower else ()
            found.append(Speed(artifact.file, reference.file, ratio.median, slower, blame))
    return tuple(found)


def _float32(bundle: Bundle, artifact: Artifact) -> Artifact:
    """Return the float32 file of the artifact's role, format and route; without one, the float32 ONNX file."""
    wanted = (artifact.role, artifact.format, "fp32", artifact.route)
    found = [a for a in bundle.artifacts if (a.role, a.format, a.precision, a.route) == wanted]
    return found[0] if found else bundle.find(artifact.role, "onnx", "fp32")


def _ratio(bundle: Bundle, artifact: Artifact, reference: Artifact) -> Quartiles:
    """Time both files in the same rounds. Those of a large pair run one after the other: the ratios are then of their
    runs in order of speed."""
    mine, theirs = (target_row(BenchTarget.of(bundle, one), default_threads()) for one in (artifact, reference))
    nbytes = artifact.bytes + reference.bytes
    if nbytes <= _TOGETHER_BYTES and fits_memory(nbytes):
        return measure_rows([mine, theirs], _TOGETHER, theirs.name).measured[mine.name].ratio
    samples_ms = []
    for row in (mine, theirs):
        with row.open() as alone:
            samples_ms.append(sorted(time_rounds({row.name: alone.run}, _APART)[row.name]))
    return Quartiles.of_ratio(*samples_ms)


def _profiled(bundle: Bundle, artifact: Artifact) -> tuple[OperatorTime, ...]:
    profiler = default_backend(artifact.format).profile
    return profile(bundle.folder / artifact.file, profiler, default_threads(), _PROFILED_RUNS)


def _blame(
    bundle: Bundle, artifact: Artifact, reference: Artifact, progress: Progress
) -> tuple[tuple[str, float], ...]:
    """Return the operator kinds whose time has grown most, with the additional milliseconds."""
    progress(f"asking which operators make {artifact.file} slow")
    try:
        mine, theirs = (
            {total.kind: total.total_ms for total in by_op_type(_profiled(bundle, one))}
            for one in (artifact, reference)
        )
    except NotAvailable:
        return ()  # the file is then reported as slower without operators
    grown = {kind: ms - theirs.get(kind, 0.0) for kind, ms in mine.items()}
    most = sorted(grown, key=lambda kind: -grown[kind])[:_BLAMED]
    return tuple((kind, grown[kind]) for kind in most if grown[kind] > 0)
