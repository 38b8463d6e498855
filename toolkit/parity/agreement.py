"""The rules by which a bundle's kind of model is converted, and the check of an imported graph's files."""

from functools import partial
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import default_backend
from toolkit.convert.rules import ConversionRules
from toolkit.metrics.judges import NoJudge
from toolkit.metrics.samples import signed_samples
from toolkit.models.kind import find_kind
from toolkit.parity.report import judge
from toolkit.parity.stream import CandidateRun, RunningComparison, compare_stream


def conversion_rules(bundle: Bundle) -> ConversionRules:
    """Return the rules of a bundle's kind, as `convert_bundle` takes them. Raises NotAvailable for an unknown kind."""
    kind = find_kind(bundle.model["kind"])
    return ConversionRules(
        lowered_roles=kind.lowered_roles,
        feeds=kind.feeds,
        check=partial(disagreements, kind.name) if kind.is_imported else None,
        may_leave_domain=kind.may_leave_domain,
        message_rule=kind.message_rule,
    )


def disagreements(kind: str, source: Path, parent: Artifact, path: Path, artifact: Artifact) -> tuple[str, ...]:
    """Return a sentence for each number of the file at `path` that is over the tolerance of its precision.

    kind: the name of the model's kind. source and parent: the float32 ONNX graph. The samples are noise, constants and
    extremes, the same that `toolkit compare` takes for a graph whose inputs are not known.
    """
    tolerance = find_kind(kind).tolerance(artifact.role, artifact.precision)
    with (
        default_backend("onnx").session(source, parent, 1) as reference,
        default_backend(artifact.format).session(path, artifact, 1) as session,
    ):
        opened = CandidateRun(session, RunningComparison(parent.file, NoJudge()), None, None)
        samples = signed_samples(tuple(binding.spec for binding in parent.inputs))
        compare_stream(samples, reference, {}, {artifact.file: opened}, may_leave_domain=True)
    checks = judge(opened.total.result(), tolerance, random=False)
    return tuple(str(check) for check in checks if check.passed is False)
