"""Converts the graphs of a bundle: chooses, probes and lowers them, and publishes the files that were made."""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from backends.artifact import Artifact
from backends.atomic import replacing
from backends.bundle import Bundle, Progress
from backends.errors import InvalidInput
from backends.precision import RECIPES, Recipe, chosen
from backends.registry import open_session
from backends.sandbox import SandboxProcess
from backends.session import Session
from backends.tensor import Array, probe
from toolkit.convert.calibration import GENERATED, Calibrated, Calibration, read_calibration, read_images
from toolkit.convert.direct import convert_direct
from toolkit.convert.job import TRIED, Job, Judged, Made, Reference
from toolkit.convert.preflight import check_conversion_space, check_large_files, check_support, supported_operators
from toolkit.convert.quantize.mixed import RECIPE_FILE, MixedRecipe, MixedRequest, find_mixed_recipe, make_mixed
from toolkit.convert.resume import Steps, kept_steps
from toolkit.convert.rules import ConversionRules, FindRules
from toolkit.convert.slices import DEFAULT_LIMIT_BYTES, open_graph, plan
from toolkit.environments import converter_python
from toolkit.metrics.error import all_finite
from toolkit.metrics.samples import signed_samples


def graphs_to_lower(bundle: Bundle, rules: ConversionRules, roles: Sequence[str] = ()) -> tuple[Artifact, ...]:
    """The float32 graphs that TFLite files are made of; of these roles alone, if any are named.

    Raises NotAvailable for a role that is not in the bundle, InvalidInput for one that is not lowered.
    """
    there = [
        artifact.role for artifact in bundle.artifacts if (artifact.format, artifact.precision) == ("onnx", "fp32")
    ]
    lowered = rules.lowered_roles(there)
    for role in roles:
        bundle.find(role, "onnx", "fp32")
        if role not in lowered:
            raise InvalidInput(f"{bundle.folder}: {role!r} is not lowered; {', '.join(lowered)} can be")
    return tuple(bundle.find(role, "onnx", "fp32") for role in roles or lowered)


DEFAULT_TIMEOUT_S = 3600.0


def convert_bundle(
    folder: Path,
    find_rules: FindRules,
    precisions: Sequence[str] = ("fp32", "fp16", "int8"),
    route: str = "direct",
    calibration: Calibration | None = None,
    progress: Progress = lambda step: None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    slice_limit_bytes: int = DEFAULT_LIMIT_BYTES,
    roles: Sequence[str] = (),
    mixed: MixedRequest | None = None,
    judged: Judged = lambda file, over: None,
) -> Bundle:
    """Lower graphs of a bundle, and add the files of each to the bundle once all of its own are made and checked.

    find_rules: called with the bundle; `toolkit.parity.agreement.conversion_rules` are those of its kind.
    Which graphs: those of `roles`, or all that models of its kind lower. For each the direct route makes
    ROLE.PRECISION.tflite for every precision of backends.precision, and ROLE.PRECISION.onnx where ONNX Runtime
    can run it; the tf route makes ROLE.PRECISION.tf.tflite for some.
    `calibration` and `mixed` are for the precisions that need them. timeout_s bounds each run of the converter; its
    log is convert-ROLE-ROUTE.log. The direct route cuts the graph into slices with at most slice_limit_bytes of
    weights each, which bounds memory. Every file is run and compared with the float32 graph on ONNX Runtime.
    Where the rules have a check, as for imported graphs, every file is also held to its tolerance: `judged` is told of
    each number over it.
    Raises InvalidInput for wrong options; NotAvailable without a bundle, a converter, room on the disk, or a runtime
    that loads files as large as these will be, or for a budget that cannot be kept; ConversionFailed; and
    InvalidArtifact for a result that is not close to the float32 graph. Then the bundle is as the graphs before left
    it.
    """
    bundle = Bundle.open(folder.resolve())  # the converter runs in a folder of its own
    recipes = chosen(precisions, route)
    _check_needed(recipes, calibration, mixed)
    rules = find_rules(bundle)
    parents = graphs_to_lower(bundle, rules, roles)
    if mixed is not None and rules.message_rule(bundle) is None:
        raise InvalidInput(
            f"{bundle.folder}: mixed counts the bits of messages, which this kind of model does not read"
        )
    options = _Options(rules, recipes, route, calibration, mixed, progress, timeout_s, slice_limit_bytes, judged)
    for parent in parents:
        bundle = _convert_graph(bundle, parent, options)
    return bundle


@dataclass(frozen=True)
class _Options:
    """The arguments of convert_bundle."""

    rules: ConversionRules
    recipes: tuple[Recipe, ...]
    route: str
    calibration: Calibration | None
    mixed: MixedRequest | None
    progress: Progress
    timeout_s: float
    slice_limit_bytes: int
    judged: Judged

    @property
    def lowered(self) -> list[str]:
        """The precisions that the converter makes: a mixed file is made of two of them."""
        names = {recipe.name for recipe in self.recipes} | ({"fp16", "int8"} if self.mixed else set())
        return [name for name, recipe in RECIPES.items() if name in names and not recipe.keeps_layers]


@dataclass(frozen=True)
class _Images:
    """Images that were read before anything else is done."""

    calibrated: Calibrated | None
    mixed: Array | None

    @property
    def key(self) -> list[str | None]:
        """Another one for other images."""
        seen = self.calibrated
        method, inputs = (
            (None, []) if seen is None else (seen.method, [seen.inputs[name] for name in sorted(seen.inputs)])
        )
        return [
            method,
            *(None if one is None else hashlib.sha256(one.data).hexdigest() for one in (*inputs, self.mixed)),
        ]


def _convert_graph(bundle: Bundle, parent: Artifact, options: _Options) -> Bundle:
    path = bundle.verify(parent)
    calibration, mixed = options.calibration, options.mixed
    with ExitStack() as stack:

        def file() -> BinaryIO:
            """One without a name: nothing of it can stay."""
            return cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(dir=bundle.folder)))

        calibrated, watched = None, None
        if calibration is not None:
            options.progress(f"reading calibration images from {calibration.folder or 'a generator'}")
            calibrated = read_calibration(calibration, options.rules.feeds, bundle, parent, file)
        if mixed is not None and mixed.images is not None:
            options.progress(f"reading images from {mixed.images}")
            watched = read_images(mixed.images, parent.inputs[0].spec.shape[-1], file())
        converter_python()  # a missing converter is said before anything is computed
        return _convert(bundle, parent, path, options, _Images(calibrated, watched))


def _convert(bundle: Bundle, parent: Artifact, path: Path, options: _Options, images: _Images) -> Bundle:
    model = open_graph(path, options.slice_limit_bytes)
    log = bundle.folder / f"convert-{parent.role}-{options.route}.log"
    log.write_text("", encoding="utf-8")
    if options.route == "direct":
        check_support(path, model, supported_operators(log, options.progress))
    slices = plan(model, options.slice_limit_bytes)
    sizes = [piece.weight_bytes for piece in slices]
    # Besides the mixed files there is one on trial, which may be as large as the FP16 one.
    check_conversion_space(
        bundle.folder, sum(sizes), max(sizes), [*options.lowered, *(["mixed", "fp16"] if options.mixed else [])]
    )
    check_large_files(bundle.folder, sum(sizes), options.lowered)

    options.progress("running the float32 graph (ONNX Runtime)")
    with open_session(bundle, parent, "ort", threads=1) as session:
        feeds, outputs = _probed(options.rules, parent, session, images.calibrated)
    inputs = {
        "source": parent.sha256,
        "route": options.route,
        "precisions": [recipe.name for recipe in options.recipes],
        "limit": options.slice_limit_bytes,
        "images": images.key,
        "mixed": repr(options.mixed),
    }
    with kept_steps(bundle.folder, inputs) as steps, SandboxProcess(log, options.timeout_s, TRIED) as trial:
        trial.start()  # the converter comes first, and keeps one core
        # The files that are made of it have other nodes.
        reference = Reference(path, replace(parent, modules=None), feeds, outputs)
        job = Job(
            bundle, options.rules, steps.folder, log, options.timeout_s, options.progress, reference, trial,
            options.judged,
        )  # fmt: skip
        if options.route == "tf":
            return _publish(bundle, _tensorflow(job, options.lowered))
        tflite = convert_direct(job, steps, model, slices, options.lowered, images.calibrated)
        made = [one for one in tflite if RECIPES[one[0].precision] in options.recipes]
        wanted = [recipe for recipe in options.recipes if recipe.for_onnx and not recipe.keeps_layers]
        made += [job.onnx(recipe, images.calibrated) for recipe in wanted]
        if options.mixed is None:
            return _publish(bundle, made)
        kept = _kept(job, steps, tflite, options.mixed, images.mixed)
        made += make_mixed(job, *_both(tflite), kept)
        return _publish(bundle, made, {RECIPE_FILE: kept.to_json()})


def _probed(
    rules: ConversionRules, parent: Artifact, session: Session, seen: Calibrated | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs to tell layouts and faults by, and their outputs: of a graph that noise may lead out of its domain, the
    first noise inside.

    Where nothing is finite, the first of all stands, and no file comes near it. Fixed ranges hold for inputs like those
    that they were seen on, not for noise: then these stand, of which a text's last has a cache.
    """
    specs = tuple(binding.spec for binding in parent.inputs)
    if seen is not None or not rules.may_leave_domain:
        feeds = probe(specs) if seen is None else seen.feeds(seen.runs - 1)
        return feeds, session.run(feeds)
    runs = ((dict(sample.feeds), session.run(sample.feeds)) for sample in signed_samples(specs))
    first = next(runs)
    return next((run for run in (first, *runs) if all_finite(run[1])), first)


def _kept(job: Job, steps: Steps, tflite: Sequence[Made], mixed: MixedRequest, images: Array | None) -> MixedRecipe:
    """The layers of a mixed file: as asked for, as an interrupted conversion found them, or as found now."""
    if mixed.kept is not None:
        return mixed.kept
    if (known := steps.finished("mixed")) is not None:
        return MixedRecipe.from_json(known, str(steps.folder))
    assert mixed.budget is not None and images is not None  # a MixedRequest has both or neither
    kept = find_mixed_recipe(job, *_both(tflite), mixed.budget, images)
    steps.finish("mixed", (), kept.document())
    return kept


def _both(tflite: Sequence[Made]) -> tuple[Made, Made]:
    by_precision = {made[0].precision: made for made in tflite}
    return by_precision["fp16"], by_precision["int8"]


def _check_needed(recipes: Sequence[Recipe], calibration: Calibration | None, mixed: MixedRequest | None) -> None:
    names = " and ".join(recipe.name for recipe in recipes if recipe.calibrated)
    if names and calibration is None:
        raise InvalidInput(f"{names}: needs calibration images: a folder of photographs, or {GENERATED!r}")
    if calibration is not None and not names:
        known = " and ".join(recipe.name for recipe in RECIPES.values() if recipe.calibrated)
        raise InvalidInput(f"calibration images were given, and no precision that needs them: {known} do")
    if (mixed is not None) != any(recipe.keeps_layers for recipe in recipes):
        raise InvalidInput("mixed goes with a recipe file, or with a budget and images, and these go with nothing else")


def _tensorflow(job: Job, precisions: Sequence[str]) -> list[Made]:
    artifact = job.reference.artifact
    for name in artifact.files:  # onnx2tf writes over the file that it is given
        shutil.copyfile(job.bundle.folder / name, job.folder / name)
    outputs = [binding.spec.name for binding in artifact.outputs]
    result = job.run("lower-tf", model=str(job.folder / artifact.file), precisions=list(precisions), outputs=outputs)
    return [job.tflite(precision, "tf", file, result.tools) for precision, file in result.files.items()]


def _publish(bundle: Bundle, made: list[Made], beside: Mapping[str, str] | None = None) -> Bundle:
    """Move files into the bundle, and write texts beside them, by name.

    Killed half-way, it leaves a whole bundle without the files being replaced.
    """
    new = {artifact.file for artifact, _ in made}
    kept = replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.file not in new))
    if kept != bundle:
        kept.write()
    for artifact, files in made:
        for file, target in zip(files, artifact.files, strict=True):
            file.replace(bundle.folder / target)
        kept = kept.with_artifact(artifact)
    for name, text in (beside or {}).items():
        with replacing(bundle.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    kept.write()
    return kept
