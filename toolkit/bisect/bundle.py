"""Bisects one file of a bundle against the float32 graph, or against an earlier version of the graph."""

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import onnx_ir as ir

from backends.artifact import Artifact
from backends.atomic import replacing_folder
from backends.bundle import Bundle, Progress
from backends.errors import InvalidInput
from backends.precision import find_recipe
from backends.registry import BACKENDS, BackendSpec, default_backend, target_name
from backends.sandbox import SandboxProcess
from backends.tensor import Array
from graphs.onnx.file import check
from graphs.onnx.foreign import weights_beside
from graphs.onnx.modules import node_key, scopes_of
from graphs.onnx.part import read_with_shapes, shape_and_dtype
from toolkit.bisect.candidates import OnnxCandidate, TfliteCandidate
from toolkit.bisect.layers import Candidate, cut_layers
from toolkit.bisect.measure import LIMIT_BYTES, LayerError, measure_layers
from toolkit.bisect.repro import SCRIPT, write_repro
from toolkit.bisect.result import BisectReport, LayerReport
from toolkit.inputs.kept import synthetic_samples
from toolkit.metrics.samples import Sample
from toolkit.models.kind import KINDS, find_kind

# For one layer, which runs twice a sample; the largest layer of this package's models takes a second.
LAYER_TIMEOUT_S = 600.0

# For watermark models: a photograph, a distorted copy and a marked copy. One image alone may not show an error.
SAMPLES = 3


def bisect_bundle(
    bundle: Bundle,
    candidate: str,
    before: Path | None = None,
    around_pass: str | None = None,
    repro: Path | None = None,
    threads: int = 1,
    progress: Progress = lambda step: None,
    limit_bytes: int = LIMIT_BYTES,
    backend: str | None = None,
    precision: str | None = None,
) -> BisectReport:
    """Measure every layer of `candidate`, a file of the bundle, and write a repro of the worst layer into a folder.

    The reference is the bundle's float32 ONNX file of the same role, or `before`, another ONNX file with the same
    inputs. With `around_pass`, the name of a pass of graphs.passes, the graphs just before and just after that pass are
    compared instead. The default of `repro`, the folder, is beside the bundle. The inputs are the first SAMPLES samples
    of `toolkit compare`. limit_bytes: the most memory for layers' results at one time. backend: for an ONNX candidate,
    the backend that runs its layers instead of the default one; then the reference file itself can be the candidate.
    precision: one without files of its own, in which that backend runs the layers.
    Raises InvalidInput if the file is not in the bundle, is the reference itself, has no tensor in common with the
    reference or has other inputs, or if the folder holds something other than a repro; InvalidArtifact for a damaged
    file, or a file that cannot be run layer by layer; NotAvailable if a pass of the export needs torch weights that the
    bundle does not have, or the backend does not run the precision.
    """
    artifact = _find(bundle, candidate)
    folder = repro or bundle.folder.parent / f"{bundle.folder.name}-{artifact.file}-repro"
    with ExitStack() as stack:
        building = stack.enter_context(replacing_folder(folder, SCRIPT, "repro"))
        made = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        other: BackendSpec | None = None
        if around_pass is not None:
            progress(f"making the graph before and after {around_pass}")
            from toolkit.bisect.passes import write_around_pass  # imports torch, which only this branch needs

            before, after, known = write_around_pass(bundle, artifact, around_pass, made)
            names = (f"{artifact.file} before {around_pass}", f"{artifact.file} after {around_pass}")
            opened: Candidate = OnnxCandidate(after)
        else:
            reference_file = bundle.find(artifact.role, "onnx", "fp32")
            other = _other_backend(artifact, backend, precision)
            artifact = artifact if precision is None else replace(artifact, precision=precision)
            if before is None and reference_file == artifact and other is None:
                raise InvalidInput(
                    f"{artifact.file} is the reference itself: give a pass, a graph of before, or another backend"
                )
            known = reference_file.modules if before is None else None
            before = before or bundle.verify(reference_file)
            names = (before.name, artifact.file if other is None else target_name(artifact, other.name))
            path = bundle.verify(artifact)
            trial = stack.enter_context(SandboxProcess(made / "litert.log", LAYER_TIMEOUT_S))
            onnx = artifact.format == "onnx"
            opened = OnnxCandidate(path, other, artifact.precision) if onnx else TfliteCandidate(path, artifact, trial)
        before = stack.enter_context(weights_beside(before))
        check(before)
        reference = read_with_shapes(before)
        samples = _samples(bundle, artifact)
        _check_inputs(before, reference, samples[0].feeds)
        progress("cutting")
        cuts = cut_layers(reference, opened)
        feeds = [sample.feeds for sample in samples]
        done, worst = measure_layers(reference, before.parent, cuts, feeds, threads, progress, limit_bytes)
        known = scopes_of(reference) if known is None else known
        report = BisectReport(
            bundle.model["name"], bundle.weights, names[1], names[0], tuple(sample.name for sample in samples),
            tuple(_layer(measured, known or {}) for measured in done), cuts.unmatched, None,
        )  # fmt: skip
        if worst is None:
            raise InvalidInput(f"{artifact.file}: it has no tensor of the same name and shape as {names[0]}")
        progress("writing the repro")
        described = {
            "model": bundle.model["name"],
            "weights": bundle.weights.origin,
            "candidate": names[1],
            "reference": names[0],
            "sample": samples[worst.sample].name,
        }
        if other is not None:
            described |= {"backend": other.name, "precision": artifact.precision}
        layer = _layer(worst.measured, known or {})
        write_repro(building, reference, worst, layer, feeds[worst.sample], opened.suffix, described)
    return replace(report, repro=str(folder))


def _other_backend(artifact: Artifact, name: str | None, precision: str | None) -> BackendSpec | None:
    """Return the named backend, or None if it is the default of the file's format.

    Raises InvalidInput if the file is not an ONNX file, the backend does not open ONNX files, or the precision is not
    one in which a file of this precision can run; NotAvailable if the backend does not run the precision here.
    """
    name = name or default_backend(artifact.format).name
    spec = BACKENDS.load(name)
    if precision is not None:
        spec.check_runs(precision)
        if find_recipe(precision).base != artifact.precision:
            raise InvalidInput(f"{artifact.file}: a file in {artifact.precision}, which does not run in {precision}")
    if name == default_backend(artifact.format).name and precision is None:
        return None
    if artifact.format not in spec.formats or artifact.format != "onnx":
        raise InvalidInput(
            f"{artifact.file}: layers run on another backend for ONNX files alone, and on one that opens them; "
            f"{name} opens {' and '.join(spec.formats)} files"
        )
    return spec


def _find(bundle: Bundle, candidate: str) -> Artifact:
    path = Path(candidate)
    inside = path.name == candidate or path.resolve().parent == bundle.folder.resolve()
    for artifact in bundle.artifacts:
        if inside and artifact.file == path.name and artifact.format in ("onnx", "tflite"):
            return artifact
    files = [artifact.file for artifact in bundle.artifacts if artifact.format in ("onnx", "tflite")]
    raise InvalidInput(f"{bundle.folder}: no candidate {candidate!r}; there is {', '.join(files)}")


def _layer(measured: LayerError, modules: Mapping[str, str]) -> LayerReport:
    layer = measured.layer
    node = layer.value.producer()
    assert node is not None  # cut_layers makes layers only of tensors that a node computes
    module = modules.get(node_key(node), "")
    return LayerReport(
        layer.match.name, str(node.name or ""), node.op_type, layer.part.operators, module, layer.match.shape,
        measured.inherited, measured.introduced,
    )  # fmt: skip


def _samples(bundle: Bundle, artifact: Artifact) -> list[Sample]:
    """Return the model kind's first SAMPLES samples, or synthetic ones if the kind is unknown, or if its samples are
    single images and the batch is not 1."""
    specs = tuple(binding.spec for binding in artifact.inputs)
    kind = find_kind(bundle.model["kind"]) if bundle.model["kind"] in KINDS.names else None
    if kind is not None and (kind.is_imported or all(spec.shape[:1] in ((), (1,)) for spec in specs)):
        return list(islice(kind.samples(bundle, artifact, ()), SAMPLES))
    return list(islice(synthetic_samples(bundle, specs), SAMPLES))


def _check_inputs(path: Path, reference: ir.Model, feeds: Mapping[str, Array]) -> None:
    got = {str(value.name): shape_and_dtype(value) for value in reference.graph.inputs}
    expected = {name: (values.shape, values.dtype.name) for name, values in feeds.items()}
    if got != expected:
        raise InvalidInput(f"{path}: expected the candidate's inputs {expected}, it has {got}")
