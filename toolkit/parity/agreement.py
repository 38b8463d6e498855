"""The conversion rules of a bundle's kind of model, and the check of files made from an imported graph."""

from functools import partial
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import default_backend
from toolkit.convert.rules import ConversionRules
from toolkit.models.kind import find_kind
from toolkit.parity.report import judge
from toolkit.parity.stream import CandidateRun, RunningComparison, compare_stream


def conversion_rules(bundle: Bundle) -> ConversionRules:
    """Return the conversion rules of a bundle's kind for `convert_bundle`. Raises NotAvailable for an unknown kind."""
    kind = find_kind(bundle.model["kind"])
    return ConversionRules(
        lowered_roles=kind.lowered_roles,
        feeds=kind.feeds,
        check=partial(disagreements, bundle) if kind.is_imported else None,
        advisory=kind.advisory(bundle, ()),
        may_leave_domain=kind.may_leave_domain,
        message_rule=kind.message_rule,
    )


def disagreements(bundle: Bundle, source: Path, parent: Artifact, path: Path, artifact: Artifact) -> tuple[str, ...]:
    """Return a sentence for each number of the file at `path` that is outside the tolerance of its precision.

    bundle: the one that the file will belong to. source, parent: its float32 ONNX file and the artifact. artifact: of
    the file at `path`. Samples, judge and tolerance are those of `toolkit compare`. Raises NotAvailable for an unknown
    kind, role or precision.
    """
    kind = find_kind(bundle.model["kind"])
    tolerance = kind.tolerance(artifact.role, artifact.precision)
    families = kind.judged_families(bundle, artifact.precision, ())
    with (
        default_backend("onnx").session(source, parent, 1) as reference,
        default_backend(artifact.format).session(path, artifact, 1) as session,
    ):
        total = RunningComparison(parent.file, kind.judge(bundle, artifact.role), families)
        opened = CandidateRun(session, total, None, None)
        samples = kind.samples(bundle, parent, ())
        compare_stream(samples, reference, {}, {artifact.file: opened}, kind.may_leave_domain)
    checks = judge(opened.total.result(), tolerance, random=False)
    return tuple(str(check) for check in checks if check.passed is False)
