"""Adds lowered and quantized artifacts to a bundle."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.registry import open_session
from graphs.export import probe
from toolkit.convert.calibration import GENERATED, Calibrated, Calibration, read_calibration
from toolkit.convert.converter import Progress
from toolkit.convert.direct import convert_direct
from toolkit.convert.job import Job, Made, Reference
from toolkit.convert.preflight import check_large_files, check_room
from toolkit.convert.recipes import RECIPES, Recipe, chosen
from toolkit.convert.roles import graphs_to_lower
from toolkit.convert.slices import DEFAULT_LIMIT_BYTES, open_graph, plan
from toolkit.convert.steps import kept_steps
from toolkit.convert.support import check_support, supported_operators
from toolkit.environments import converter_python

DEFAULT_TIMEOUT_S = 3600.0


def convert_bundle(
    folder: Path,
    precisions: Sequence[str] = ("fp32", "fp16", "int8"),
    route: str = "direct",
    calibration: Calibration | None = None,
    progress: Progress = lambda step: None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    slice_limit_bytes: int = DEFAULT_LIMIT_BYTES,
    roles: Sequence[str] = (),
) -> Bundle:
    """Lower graphs of a bundle, and add the files of each to the bundle once all of its own are made and checked.

    Which graphs: those of `roles`, or all that models of its kind lower. For each the direct route makes
    ROLE.PRECISION.tflite for every precision of toolkit.convert.recipes, and ROLE.PRECISION.onnx where ONNX Runtime
    can run it; the tf route makes ROLE.PRECISION.tf.tflite for some.
    `calibration` is for the precisions that need it. timeout_s bounds each run of the converter; its log is
    convert-ROLE-ROUTE.log. The direct route cuts the graph into slices with at most slice_limit_bytes of weights each,
    which bounds memory. Every file is run and compared with the float32 graph on ONNX Runtime.
    Raises InvalidInput for wrong options; NotAvailable without a bundle, a converter, room on the disk, or a runtime
    that loads files as large as these will be; ConversionFailed; and InvalidArtifact for a result that is not close
    to the float32 graph. Then the bundle is as the graphs before left it.
    """
    bundle = Bundle.open(folder.resolve())  # the converter runs in a folder of its own
    recipes = chosen(precisions, route)
    _check_calibration(recipes, calibration)
    parents = graphs_to_lower(bundle, roles)
    for parent in parents:
        bundle = _convert_graph(bundle, parent, recipes, route, calibration, progress, timeout_s, slice_limit_bytes)
    return bundle


def _convert_graph(
    bundle: Bundle,
    parent: Artifact,
    recipes: Sequence[Recipe],
    route: str,
    calibration: Calibration | None,
    progress: Progress,
    timeout_s: float,
    slice_limit_bytes: int,
) -> Bundle:
    path = bundle.verify(parent)
    with tempfile.TemporaryFile(dir=bundle.folder) as file:  # it has no name: nothing of it can stay
        calibrated = None
        if calibration is not None:
            progress(f"reading calibration images from {calibration.folder or 'a generator'}")
            calibrated = read_calibration(calibration, _image_size_px(bundle, parent), file)
        converter_python()  # a missing converter is said before anything is computed
        if route == "direct":
            check_support(path, open_graph(path), supported_operators(progress))
        return _convert(bundle, parent, path, recipes, route, calibrated, progress, timeout_s, slice_limit_bytes)


def _convert(
    bundle: Bundle,
    parent: Artifact,
    path: Path,
    recipes: Sequence[Recipe],
    route: str,
    calibrated: Calibrated | None,
    progress: Progress,
    timeout_s: float,
    slice_limit_bytes: int,
) -> Bundle:
    precisions = [recipe.name for recipe in recipes]
    model = open_graph(path)
    slices = plan(model, slice_limit_bytes)
    sizes = [piece.weight_bytes for piece in slices]
    check_room(bundle.folder, sum(sizes), max(sizes), precisions)
    check_large_files(bundle.folder, sum(sizes), precisions)

    progress("running the float32 graph (ONNX Runtime)")
    feeds = probe(tuple(binding.spec for binding in parent.inputs))
    with open_session(bundle, parent, "ort", threads=1) as session:
        outputs = session.run(feeds)
    log = bundle.folder / f"convert-{parent.role}-{route}.log"
    log.write_text("", encoding="utf-8")
    inputs = {"source": parent.sha256, "route": route, "precisions": precisions, "limit": slice_limit_bytes}
    if calibrated is not None:
        inputs["calibration"] = [calibrated.method, hashlib.sha256(calibrated.images.data).hexdigest()]
    with kept_steps(bundle.folder, inputs) as steps:
        job = Job(bundle, steps.folder, log, timeout_s, progress, Reference(path, parent, feeds, outputs))
        if route == "direct":
            made = convert_direct(job, steps, model, slices, precisions, calibrated)
        else:
            made = _tensorflow(job, precisions)
        return _publish(bundle, made)


def _image_size_px(bundle: Bundle, parent: Artifact) -> int:
    """The size of what a graph is calibrated on. Raises InvalidInput where that is not one square image in [0, 1]."""
    kind, spec = bundle.model["kind"], parent.inputs[0].spec
    if kind not in ("watermark", "tensor") or len(parent.inputs) != 1 or spec.layout != "NCHW":
        raise InvalidInput(
            f"{parent.file}: a graph of kind {kind!r} cannot be calibrated on images; choose another precision"
        )
    return spec.shape[-1]


def _check_calibration(recipes: Sequence[Recipe], calibration: Calibration | None) -> None:
    names = " and ".join(recipe.name for recipe in recipes if recipe.calibrated)
    if names and calibration is None:
        raise InvalidInput(f"{names}: needs calibration images: a folder of photographs, or {GENERATED!r}")
    if calibration is not None and not names:
        known = " and ".join(recipe.name for recipe in RECIPES.values() if recipe.calibrated)
        raise InvalidInput(f"calibration images were given, and no precision that needs them: {known} do")


def _tensorflow(job: Job, precisions: Sequence[str]) -> list[Made]:
    artifact = job.reference.artifact
    for name in artifact.files:  # onnx2tf writes over the file that it is given
        shutil.copyfile(job.bundle.folder / name, job.folder / name)
    outputs = [binding.spec.name for binding in artifact.outputs]
    result = job.run("lower-tf", model=str(job.folder / artifact.file), precisions=list(precisions), outputs=outputs)
    return [job.tflite(precision, "tf", file, result.tools) for precision, file in result.files.items()]


def _publish(bundle: Bundle, made: list[Made]) -> Bundle:
    """Move files into the bundle. Killed half-way, it leaves a whole bundle without the files being replaced."""
    new = {artifact.file for artifact, _ in made}
    kept = replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.file not in new))
    if kept != bundle:
        kept.write()
    for artifact, files in made:
        for file, target in zip(files, artifact.files, strict=True):
            file.replace(bundle.folder / target)
        kept = kept.with_artifact(artifact)
    kept.write()
    return kept
