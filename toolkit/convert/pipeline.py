"""Converts the graphs of a bundle: chooses, checks and lowers them, and moves the finished files into the bundle."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import onnx_ir as ir

from backends.artifact import Artifact
from backends.atomic import replacing
from backends.bundle import Bundle, Progress
from backends.errors import InvalidInput
from backends.precision import MIXED, RECIPES, USUAL, chosen
from backends.registry import open_session
from backends.sandbox import SandboxProcess
from backends.session import Session
from backends.tensor import Array, probe
from graphs.onnx.file import save
from graphs.passes.integers import floats_with_ranges
from graphs.tflite.graph import read_graph
from graphs.tflite.writer import write_graph
from toolkit.convert.calibration import Calibrated, Calibration, read_calibration, read_images
from toolkit.convert.converter import ConversionFailed
from toolkit.convert.direct import convert_direct
from toolkit.convert.healing import Lowering, lower_otherwise
from toolkit.convert.job import TRIED, Job, Reference
from toolkit.convert.names import carry_names
from toolkit.convert.options import Options, check_needed, files_to_make
from toolkit.convert.outcome import SUFFIXES, Attempts, Conversion, FileOutcome, Key, Made, Runtime
from toolkit.convert.preflight import (
    check_conversion_space,
    check_large_files,
    check_support,
    large_files,
    supported_operators,
)
from toolkit.convert.quantize.mixed import (
    RECIPE_FILE,
    MixedRecipe,
    MixedRequest,
    find_mixed_recipe,
    make_mixed_tflite,
)
from toolkit.convert.quantize.static_search import make_static_onnx
from toolkit.convert.resume import Steps, kept_steps
from toolkit.convert.rules import QUANTIZED, ConversionRules, FindRules
from toolkit.convert.slices import DEFAULT_LIMIT_BYTES, CutGraph, cut_graph, fixed_graph, open_graph, rewrite_graph
from toolkit.environments import converter_python
from toolkit.inputs.images import Preprocess
from toolkit.inputs.kept import KeptInputs, not_imported, real_inputs, synthetic_samples, with_inputs
from toolkit.metrics.error import all_finite


def graphs_to_lower(bundle: Bundle, rules: ConversionRules, roles: Sequence[str] = ()) -> tuple[Artifact, ...]:
    """Return the float32 ONNX graphs to lower: those of `roles`, or all that the rules lower if `roles` is empty.

    Raises NotAvailable for a role that is not in the bundle, InvalidInput for a role that the rules do not lower.
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
    precisions: Sequence[str] | None = None,
    route: str = "direct",
    calibration: Calibration | None = None,
    progress: Progress = lambda step: None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    slice_limit_bytes: int = DEFAULT_LIMIT_BYTES,
    roles: Sequence[str] = (),
    mixed: MixedRequest | None = None,
    runtimes: Sequence[Runtime] = tuple(SUFFIXES),
    strict: bool = False,
    inputs: Path | None = None,
    preprocess: Preprocess | None = None,
) -> Conversion:
    """Lower graphs of a bundle, one after the other, and add the files that could be made to the bundle.

    Each file is made independently: the result has the outcome of every file, and the bundle lists those that were
    made. find_rules: called with the bundle; `toolkit.parity.agreement.conversion_rules` gives those of its kind.
    roles: of the graphs to lower; empty for all that models of the kind lower. runtimes: to make files for. For each
    graph the direct route makes ROLE.PRECISION.tflite for every one of `precisions`, and ROLE.PRECISION.onnx where ONNX
    Runtime can run it; the tf route makes ROLE.PRECISION.tf.tflite, for some precisions. Without `precisions` those of
    USUAL are made, except one that would change no weight of a graph: its outcome is then `impossible`, and no failure.
    `calibration` and `mixed` are for the precisions that need them. inputs, preprocess: real inputs for an imported
    model, see `toolkit.inputs.read.read_inputs`, which the manifest then keeps instead of others. Files are judged on
    them, and without `calibration` they are the calibration too. timeout_s: for each run of the converter, whose log is
    convert-ROLE-ROUTE.log. The direct route cuts the graph into slices with at most slice_limit_bytes of weights each,
    which bounds memory. Every file is run and judged once: by the check of the rules, as for imported graphs, or else
    by its error on one input. strict: end at the first file that cannot be made, and add no file of its graph. The
    error is then that of the file: NotAvailable for an operator that the converter does not lower, a file too large for
    LiteRT or a budget that cannot be kept; ConversionFailed if the converter fails; InvalidArtifact if a file cannot
    run or is not close to the float32 graph.
    Raises InvalidInput for wrong options; NotAvailable if there is no bundle, no converter or too little disk space.
    """
    bundle = Bundle.open(folder.resolve())  # an absolute path: the converter runs in another working directory
    if (inputs or preprocess) is not None:
        if find_rules(bundle).check is None:
            raise not_imported(bundle)
        bundle = with_inputs(bundle, inputs, preprocess)
    recipes = chosen(USUAL if precisions is None else precisions, route)
    has_inputs = KeptInputs.of(bundle).path is not None
    if calibration is None and has_inputs and any(recipe.calibrated for recipe in recipes):
        calibration = Calibration(None, of_inputs=True)
    check_needed(recipes, calibration, mixed)
    keys = files_to_make(recipes, route, runtimes)
    rules = find_rules(bundle)
    parents = graphs_to_lower(bundle, rules, roles)
    if mixed is not None and rules.message_rule(bundle) is None:
        raise InvalidInput(
            f"{bundle.folder}: precision mixed needs a model that reads messages: this kind of model reads none"
        )
    options = Options(
        rules, keys, route, calibration, mixed, progress, timeout_s, slice_limit_bytes, strict, precisions is not None
    )
    outcomes: list[FileOutcome] = []
    notes: list[str] = []
    for parent in parents:
        result = _convert_graph(bundle, parent, options)
        bundle = result.bundle
        outcomes += result.outcomes
        notes += result.notes
    return Conversion(bundle, tuple(outcomes), tuple(notes), rules.advisory)


@dataclass(frozen=True)
class _Images:
    """The calibration inputs, and the images of a mixed search (N, 3, S, S); None if not needed.

    refused: why there are no calibration inputs although a precision needs them, else None.
    """

    calibrated: Calibrated | None
    mixed: Array | None
    refused: InvalidInput | None

    @property
    def key(self) -> list[str | None]:
        """A key that identifies the images: the calibration method and SHA-256 hashes."""
        seen = self.calibrated
        method, inputs = (
            (None, []) if seen is None else (seen.method, [seen.inputs[name] for name in sorted(seen.inputs)])
        )
        return [
            method,
            *(None if one is None else hashlib.sha256(one.data).hexdigest() for one in (*inputs, self.mixed)),
        ]


def _convert_graph(bundle: Bundle, parent: Artifact, options: Options) -> Conversion:
    path = bundle.verify(parent)
    calibration, mixed = options.calibration, options.mixed
    with ExitStack() as stack:

        def file() -> BinaryIO:
            """Open a temporary file without a name, of which nothing can be left behind."""
            return cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(dir=bundle.folder)))

        calibrated, watched, refused = None, None, None
        if calibration is not None:
            options.progress(f"reading calibration inputs from {calibration.source}")
            try:
                calibrated = read_calibration(calibration, options.rules.feeds, bundle, parent, file)
            except InvalidInput as error:
                if options.strict or len(options.calibrated) == len(options.keys):
                    raise
                refused = error  # the other precisions need no calibration
        if mixed is not None and mixed.images is not None:
            options.progress(f"reading images from {mixed.images}")
            watched = read_images(mixed.images, parent.inputs[0].spec.shape[-1], file())
        if options.lowered:
            converter_python()  # raises now, before anything is computed, if the converter is missing
        return _convert(bundle, parent, path, options, _Images(calibrated, watched, refused))


def _convert(bundle: Bundle, parent: Artifact, path: Path, options: Options, images: _Images) -> Conversion:
    log = bundle.folder / f"convert-{parent.role}-{options.route}.log"
    log.write_text("", encoding="utf-8")
    attempts = Attempts(parent, options.route, options.strict, options.named, log)
    if bundle.model.get(QUANTIZED) and options.quantized:
        attempts.notes.append(
            f"{parent.file} is quantized already, and ONNX Runtime runs it as it is: its other files there gain little"
        )
    if images.refused is not None:
        attempts.fail(options.calibrated, images.refused)
    before = attempts.copy()
    cut: CutGraph | None = None
    with attempts.guard([("tflite", precision) for precision in options.lowered]):
        if options.lowered:
            cut = _cut(path, log, options, open_graph(path, options.slice_limit_bytes))
    sizes = [parent.bytes] if cut is None else [piece.weight_bytes for piece in cut.slices]
    # The search for a mixed file writes one more file at a time, which may be as large as the FP16 file.
    made = options.lowered if cut is not None else [recipe.name for recipe in options.quantized]
    check_conversion_space(
        bundle.folder, sum(sizes), max(sizes), [*made, *(["mixed", "fp16"] if options.mixed else [])]
    )
    large = large_files(sum(sizes), options.lowered)
    with attempts.guard([("tflite", precision) for precision in large]):
        check_large_files(bundle.folder, sum(sizes), large)

    is_quantized = bool(bundle.model.get(QUANTIZED)) and options.route == "direct"
    own = [precision for precision in options.lowered if is_quantized and RECIPES[precision].is_integer]
    lowered = [precision for precision in options.lowered if precision not in own]
    options.progress("running the float32 graph (ONNX Runtime)")
    with open_session(bundle, parent, "ort", threads=1) as session:
        feeds, outputs = _probed(bundle, options.rules, parent, session, images.calibrated)
    inputs = {
        "source": parent.sha256,
        "route": options.route,
        "precisions": options.lowered,
        "limit": options.slice_limit_bytes,
        "images": images.key,
        "mixed": repr(options.mixed),
    }
    with (
        kept_steps(bundle.folder, inputs, parent.role) as steps,
        SandboxProcess(log, options.timeout_s, TRIED) as trial,
    ):
        trial.start()  # it imports its modules while the converter, which comes first, uses one core
        # The new files have other nodes, so that they do not inherit the map from nodes to modules.
        reference = Reference(path, replace(parent, modules=None), feeds, outputs)
        job = Job(bundle, options.rules, steps.folder, log, options.timeout_s, options.progress, reference, trial)
        with attempts.guard([("tflite", precision) for precision in options.lowered]):
            if cut is not None and options.route == "tf":
                _tensorflow(job, options.lowered, attempts)
            elif cut is not None and lowered:
                try:
                    convert_direct(job, steps, cut, lowered, images.calibrated, attempts)
                except ConversionFailed:
                    steps.unfinished = True  # another conversion goes on after the slices that were finished
                    raise
        slices = partial(_cut, path, log, options)
        if options.rules.check is not None and options.route == "direct":
            lowering = Lowering(job, slices, options.slice_limit_bytes, lowered, images.calibrated)
            attempts = lower_otherwise(lowering, attempts, before)
            steps.unfinished &= attempts.way is None
        if own:
            with attempts.guard([("tflite", precision) for precision in own]):
                _by_own_scales(job, slices, own, images.calibrated, attempts)
        for recipe in options.quantized:
            work = partial(job.onnx, recipe, images.calibrated)
            if images.calibrated is not None and (
                recipe.is_integer or (recipe.calibrated and options.rules.searches_layers)
            ):
                work = partial(make_static_onnx, job, recipe, images.calibrated)
            attempts.make(("ort", recipe.name), work)
        beside = {} if options.mixed is None else _mix(job, steps, attempts, options.mixed, images.mixed)
        outcomes = tuple(attempts.outcome(key) for key in options.keys)
        new = [attempts.made(key) for key, outcome in zip(options.keys, outcomes, strict=True) if outcome.made]
        return Conversion(_publish(bundle, new, beside) if new else bundle, outcomes, tuple(attempts.notes))


def _cut(path: Path, log: Path, options: Options, model: ir.Model, route: str = "direct") -> CutGraph:
    """Return a graph, which was read from `path`, as the converter gets it. Raises NotAvailable for an operator that
    the converter does not lower, InvalidInput for a node whose weights are over the limit of a slice."""
    if (options.route, route) == ("direct", "direct"):
        check_support(path, model, supported_operators(log, options.progress))
    return cut_graph(model, options.slice_limit_bytes, route)


def _by_own_scales(
    job: Job,
    cut: Callable[[ir.Model], CutGraph],
    precisions: Sequence[str],
    calibrated: Calibrated | None,
    attempts: Attempts,
) -> None:
    """Make the TFLite files that are integers throughout of a graph that is quantized already, by its own scales.

    The float graph that it was made of is lowered and quantized again, by ranges that its scales state. What it has
    between other operators in floats is calibrated.
    """
    job = replace(job, folder=job.folder / "own-scales")
    shutil.rmtree(job.folder, ignore_errors=True)  # of an interrupted conversion
    job.folder.mkdir()
    model, ranges = floats_with_ranges(fixed_graph(job.reference.path))
    pieces = cut(rewrite_graph(model, DEFAULT_LIMIT_BYTES)[0])
    pieces = replace(pieces, ranges={pieces.names.carried(name): one for name, one in ranges.items()})
    convert_direct(job, Steps(job.folder), pieces, precisions, calibrated, attempts)


def _probed(
    bundle: Bundle, rules: ConversionRules, parent: Artifact, session: Session, seen: Calibrated | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the inputs on which converted files are compared with the graph, and the graph's outputs for them.

    With calibration: the inputs of its last run, since fixed ranges do not hold for noise (in a text, the last run has
    a filled cache). Without: noise. If noise may be outside the graph's domain, the first real or synthetic sample with
    finite outputs; if there is none, the first sample, which no file can match.
    """
    specs = tuple(binding.spec for binding in parent.inputs)
    if seen is not None or not rules.may_leave_domain:
        feeds = probe(specs) if seen is None else seen.feeds(seen.runs - 1)
        return feeds, session.run(feeds)
    samples = chain(real_inputs(bundle, specs) or (), synthetic_samples(bundle, specs))
    runs = ((dict(sample.feeds), session.run(sample.feeds)) for sample in samples)
    first = next(runs)
    return next((run for run in (first, *runs) if all_finite(run[1])), first)


def _mix(job: Job, steps: Steps, attempts: Attempts, mixed: MixedRequest, images: Array | None) -> dict[str, str]:
    """Make the mixed files for both runtimes. Return the text of their recipe file by its name, if it was found."""
    keys: list[Key] = [("tflite", MIXED.name), ("ort", MIXED.name)]
    with attempts.guard(keys):
        fp16, int8 = attempts.made(("tflite", "fp16")), attempts.made(("tflite", "int8"))
        kept = _kept(job, steps, fp16, int8, mixed, images)
        attempts.make(keys[0], partial(make_mixed_tflite, job, fp16, int8, kept))
        attempts.make(keys[1], partial(job.onnx, MIXED, kept=kept.onnx))
        failed = [key for key in keys if attempts.why(key) is not None]
        steps.unfinished |= bool(failed)  # the result of the search is kept for another conversion
        return {RECIPE_FILE: kept.to_json()} if len(failed) < len(keys) else {}
    return {}


def _kept(job: Job, steps: Steps, fp16: Made, int8: Made, mixed: MixedRequest, images: Array | None) -> MixedRecipe:
    """Return the layers to keep in a mixed file: those asked for, those that an interrupted conversion found, or the
    result of a new search."""
    if mixed.kept is not None:
        return mixed.kept
    if (known := steps.finished("mixed")) is not None:
        return MixedRecipe.from_json(known, str(steps.folder))
    assert mixed.budget is not None and images is not None  # a MixedRequest has both or neither
    kept = find_mixed_recipe(job, fp16, int8, mixed.budget, images)
    steps.finish("mixed", (), kept.document())
    return kept


def _tensorflow(job: Job, precisions: Sequence[str], attempts: Attempts) -> None:
    artifact = job.reference.artifact
    for name in artifact.files:  # onnx2tf overwrites its input file
        shutil.copyfile(job.bundle.folder / name, job.folder / name)
    path = job.folder / artifact.file
    model = fixed_graph(path)
    if (names := carry_names(model)) or artifact.axes:
        path = save(model, job.folder / "renamed.onnx")[0]
    outputs = [names.carried(binding.spec.name) for binding in artifact.outputs]
    result = job.run("lower-tf", model=str(path), precisions=list(precisions), outputs=outputs)
    for precision, file in result.files.items():
        if names:
            with attempts.guard([("tflite", precision)]):
                graph = read_graph(file)
                names.restore(graph)
                write_graph(graph, file.with_suffix(".own"))
                file.with_suffix(".own").replace(file)
        attempts.make(("tflite", precision), partial(job.tflite, precision, "tf", file, result.tools))


def _publish(bundle: Bundle, made: Sequence[Made], beside: Mapping[str, str] | None = None) -> Bundle:
    """Move files into the bundle, write the texts `beside` (by file name) next to them, and return the new bundle.

    If the process is killed half-way, a valid bundle is left, without the files that were to be replaced.
    """
    new = {one.artifact.file for one in made}
    kept = replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.file not in new))
    if kept != bundle:
        kept.write()
    for one in made:
        for file, target in zip(one.files, one.artifact.files, strict=True):
            file.replace(bundle.folder / target)
        kept = kept.with_artifact(one.artifact)
    for name, text in (beside or {}).items():
        with replacing(bundle.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    kept.write()
    return kept
