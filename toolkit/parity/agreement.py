"""The conversion rules of a bundle's kind of model, and the check of files made from an imported graph."""

from functools import partial
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.precision import FP16, FP32, INT8_STATIC
from backends.registry import default_backend
from toolkit.convert.rules import QUANTIZED, ConversionRules
from toolkit.metrics.judges import NoJudge
from toolkit.metrics.samples import signed_samples
from toolkit.models.kind import find_kind
from toolkit.parity.report import judge
from toolkit.parity.stream import CandidateRun, RunningComparison, compare_stream


def conversion_rules(bundle: Bundle) -> ConversionRules:
    """Return the conversion rules of a bundle's kind for `convert_bundle`. Raises NotAvailable for an unknown kind."""
    kind = find_kind(bundle.model["kind"])
    check = partial(disagreements, kind.name, quantized=bool(bundle.model.get(QUANTIZED)))
    return ConversionRules(
        lowered_roles=kind.lowered_roles,
        feeds=kind.feeds,
        check=check if kind.is_imported else None,
        may_leave_domain=kind.may_leave_domain,
        message_rule=kind.message_rule,
    )


def judged_precision(artifact: Artifact, quantized: bool) -> str:
    """Return the precision whose tolerance a file is held to: its own.

    quantized: whether the imported graph was quantized already. A file with floats between its operators then rounds to
    other levels than the graph, as a static file does.
    """
    floats = artifact.precision in (FP32.name, FP16.name)
    return INT8_STATIC.name if quantized and floats and artifact.parent is not None else artifact.precision


def disagreements(
    kind: str, source: Path, parent: Artifact, path: Path, artifact: Artifact, quantized: bool = False
) -> tuple[str, ...]:
    """Return a sentence for each number of the file at `path` that is outside the tolerance of its precision.

    kind: the name of the model's kind. source, parent: the float32 ONNX file and its artifact. artifact: of the file at
    `path`. quantized: as in `judged_precision`. The samples are `signed_samples`, as in `toolkit compare` for graphs
    with inputs of unknown range. Raises NotAvailable for an unknown kind, role or precision.
    """
    tolerance = find_kind(kind).tolerance(artifact.role, judged_precision(artifact, quantized))
    with (
        default_backend("onnx").session(source, parent, 1) as reference,
        default_backend(artifact.format).session(path, artifact, 1) as session,
    ):
        opened = CandidateRun(session, RunningComparison(parent.file, NoJudge()), None, None)
        samples = signed_samples(tuple(binding.spec for binding in parent.inputs))
        compare_stream(samples, reference, {}, {artifact.file: opened}, may_leave_domain=True)
    checks = judge(opened.total.result(), tolerance, random=False)
    return tuple(str(check) for check in checks if check.passed is False)
