"""The conversion rules of a bundle's kind of model, and the check of files made from an imported graph."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.precision import FP16, FP32, INT8_STATIC
from backends.registry import default_backend
from toolkit.convert.rules import QUANTIZED, ConversionRules
from toolkit.inputs.kept import real_inputs, synthetic_samples
from toolkit.metrics.task import JudgeChoice
from toolkit.models.kind import kind_of
from toolkit.models.tensor import with_judge
from toolkit.parity.found import FoundRows
from toolkit.parity.report import judge, memory_check
from toolkit.parity.stream import CandidateRun, RunningComparison, compare_stream
from toolkit.parity.ties import Ties

# Each file of a conversion is judged on at most this many real inputs; `toolkit compare` takes all.
MOST_REAL = 64


def conversion_rules(bundle: Bundle, chosen: JudgeChoice | None = None) -> ConversionRules:
    """Return the conversion rules of a bundle's kind for `convert_bundle`.

    chosen: the judge of an imported graph's answers, instead of the one that the bundle keeps. Raises NotAvailable for
    an unknown kind or judge, and InvalidInput for a judge that cannot read the outputs.
    """
    if chosen is not None:
        bundle = with_judge(bundle, chosen)
    kind = kind_of(bundle)
    return ConversionRules(
        lowered_roles=kind.lowered_roles,
        feeds=kind.feeds,
        check=partial(disagreements, bundle) if kind.is_imported else None,
        advisory=kind.advisory(bundle, ()),
        may_leave_domain=kind.may_leave_domain,
        message_rule=kind.message_rule,
    )


def judged_precision(bundle: Bundle, artifact: Artifact, is_default: bool = True) -> str:
    """Return the precision whose tolerance a file is held to: its own.

    If the imported graph was quantized already, a file with floats between its operators rounds to other levels than
    the graph, as a static file does; and so does the graph itself on a runtime that fuses it otherwise.
    is_default: whether the file runs on the default backend of its format.
    """
    floats = artifact.precision in (FP32.name, FP16.name)
    is_other = bundle.model.get(QUANTIZED) and floats and (artifact.parent is not None or not is_default)
    return INT8_STATIC.name if is_other else artifact.precision


def disagreements(bundle: Bundle, source: Path, parent: Artifact, path: Path, artifact: Artifact) -> tuple[str, ...]:
    """Return a sentence for each number of the file at `path` that is outside the tolerance of its precision, with the
    sort of inputs on which it was judged.

    bundle: the one that the file will belong to. source, parent: its float32 ONNX file and the artifact. artifact: of
    the file at `path`. Samples, judge and tolerance are those of `toolkit compare`, but of many real inputs MOST_REAL
    are taken, evenly. Raises NotAvailable for an unknown kind, role or precision, and InvalidArtifact for a file that
    keeps memory between runs.
    """
    kind = kind_of(bundle)
    precision = judged_precision(bundle, artifact)
    tolerance = kind.tolerance(artifact.role, precision)
    families = kind.judged_families(bundle, precision, ())
    with (
        default_backend("onnx").session(source, parent, 1) as reference,
        default_backend(artifact.format).session(path, artifact, 1) as session,
    ):
        total = RunningComparison(parent.file, kind.judge(bundle, artifact.role), families, FoundRows.of(parent))
        opened = CandidateRun(session, total, None, None)
        specs = [binding.spec for binding in parent.inputs]
        real = real_inputs(bundle, specs)
        samples = chain(() if real is None else real.spread(MOST_REAL), synthetic_samples(bundle, specs))
        compare_stream(
            samples,
            reference,
            {},
            {artifact.file: opened},
            kind.may_leave_domain,
            True,
            Ties.of(source, parent.outputs),
        )
    if opened.remembered is not None:
        raise InvalidArtifact(f"{artifact.file}: {memory_check(opened.remembered)}")
    checks = judge(opened.total.result(), tolerance, random=False)
    judged_on = _named(families, real is not None)
    return tuple(f"{check}, {judged_on}" for check in checks if check.passed is False)


def _named(families: Sequence[str], has_real: bool) -> str:
    """Return the inputs on which a file was judged in words."""
    synthetic = "noise, constants and extremes"
    if not has_real:
        return f"on {synthetic}"
    return "on the real inputs" if "synthetic" not in families else f"on the real inputs, {synthetic}"
