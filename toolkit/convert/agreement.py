"""Does a file of an imported graph compute what the graph does? Noise, constants and extremes, held to its tolerance.

Nobody knows what such a graph is for, so nothing is known of its inputs either: `toolkit compare` puts in the same.
"""

from pathlib import Path

from backends.artifact import Artifact
from backends.registry import BACKENDS, SESSIONS
from toolkit.parity.judging import NoJudge
from toolkit.parity.report import Check, judge
from toolkit.parity.stream import Opened, RunningComparison, compare_stream
from toolkit.parity.synthetic import signed_samples
from toolkit.parity.tolerance import tolerance_for

# The kind of bundles that `toolkit import` makes.
KIND = "tensor"


def disagreements(source: Path, parent: Artifact, path: Path, artifact: Artifact) -> tuple[Check, ...]:
    """What of `path` is further from the float32 ONNX graph in `source` than the tolerance of its precision says."""
    tolerance = tolerance_for(KIND, artifact.role, artifact.precision)
    with (
        SESSIONS.load("ort")(source, parent, 1) as reference,
        SESSIONS.load(BACKENDS[artifact.format])(path, artifact, 1) as session,
    ):
        opened = Opened(session, RunningComparison(parent.file, NoJudge()), None, None)
        samples = signed_samples(tuple(binding.spec for binding in parent.inputs))
        compare_stream(samples, reference, {}, {artifact.file: opened}, may_leave_domain=True)
    return tuple(check for check in judge(opened.total.result(), tolerance, random=False) if check.passed is False)
