"""Imports an ONNX file as a bundle, and compares the imported graph's outputs with those of the file."""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from backends.artifact import SIZES, Artifact
from backends.atomic import replacing_folder
from backends.bundle import MANIFEST, MENDINGS, Bundle, Progress, WeightsOrigin, sha256_of
from backends.errors import InvalidArtifact, InvalidInput, ToolkitError, one_line
from backends.sandbox import SandboxProcess
from backends.tensor import Array, Binding
from graphs.onnx.apart import Feeds, Outputs, run, sizes_by_runtime
from graphs.onnx.file import OPSET, check, save
from graphs.onnx.floats import HALVES, other_floats, rounded_outputs
from graphs.onnx.foreign import (
    Values,
    constants_of,
    drop_given_outputs,
    drop_unread_inputs,
    external_files,
    read_foreign,
    weights_beside,
)
from graphs.onnx.integers import integer_inputs
from graphs.onnx.modules import modules_by_node, read_scopes
from graphs.onnx.sizes import Shapes, fixed_shapes, infer_shapes, name_found_axes, sizes_of_axes, specs_of
from graphs.onnx.source import SOURCE, VALUES, source_json, values_json
from graphs.passes.integers import is_quantized
from graphs.passes.pipeline import prepare, prepare_without_faults
from graphs.passes.simplify import PRELOADED, steps_with
from toolkit.convert.rules import QUANTIZED
from toolkit.import_check import (
    HALF_TOLERANCE,
    TOLERANCE,
    as_stated,
    at_other_sizes,
    difference,
    in_float32,
    not_compared,
    open_axes,
    outputs_of_source,
    shapes_of,
    shapes_of_found,
)
from toolkit.inputs import KEY
from toolkit.inputs.images import Preprocess
from toolkit.inputs.kept import KeptInputs, relative_path
from toolkit.inputs.read import read_inputs
from toolkit.metrics.samples import signed_samples
from toolkit.metrics.task import JudgeChoice
from toolkit.models.tensor import ROUNDED, with_judge

# Far more than it takes to load a graph of several gigabytes and to run it a few times.
TIMEOUT_S = 3600.0

KIND = "tensor"
ROLE = "model"
MOST_REAL = 8
_SAMPLES = ("uniform noise 0", "normal noise 0", "all 1")
_TOOLS = ("onnx", "onnxsim", "onnxruntime")


def import_model(
    source: Path,
    folder: Path,
    shapes: Shapes,
    progress: Progress = lambda step: None,
    values: Values | None = None,
    note: Callable[[str], None] = lambda line: None,
    inputs: Path | None = None,
    preprocess: Preprocess | None = None,
    judge: JudgeChoice | None = None,
    cut_at: Sequence[str] | None = None,
    weights: Mapping[str, str] | None = None,
) -> Bundle:
    """Make a bundle in `folder` from an ONNX file; an older bundle there is replaced.

    `shapes` gives inputs their shapes. Axes that it names stay open in the ONNX files: the graph is also compared with
    the source at other sizes of them, and everything else has the sizes of `fixed_shapes`. Inputs named in `values`
    become constants; the tensors named in `cut_at` become the outputs, and nothing behind them is in the bundle. The
    graph is converted to the toolkit's opset, simplified and prepared, and its outputs are compared with those of the
    source on ONNX Runtime. `note` is called with a line if ONNX Runtime cannot run the source, for each pass, input and
    output that is left out, and for floats of another width. The manifest keeps these lines and one for every other
    change, as Bundle.mendings.
    inputs: real inputs, see `read_inputs`, of which MOST_REAL are compared too. The manifest keeps their path relative
    to `folder`, `preprocess`, which values integer inputs can have, and `judge`.
    weights: the origin and the source of the weights for the manifest, if the file was itself made from something else.
    Raises InvalidInput and InvalidArtifact as `read_foreign` does, and InvalidInput as `read_inputs`; InvalidInput if
    no operator is left, an output is not a tensor or the judge cannot read the outputs; InvalidArtifact if the file
    cannot be run, if its outputs differ from run to run, or if the prepared graph's outputs differ from the file's.
    """
    progress(f"reading {source}")
    with weights_beside(source) as place:
        given = (inputs, preprocess, judge, tuple(cut_at or ()), weights)
        return _import(place, source, folder, shapes, progress, values or {}, note, *given)


def _import(
    source: Path,
    named: Path,
    folder: Path,
    shapes: Shapes,
    progress: Progress,
    values: Values,
    note: Callable[[str], None],
    inputs: Path | None,
    preprocess: Preprocess | None,
    judge: JudgeChoice | None,
    cut_at: Sequence[str],
    weights: Mapping[str, str] | None,
) -> Bundle:
    """Import the file at `source`, which the user calls `named`; all else is as for import_model."""
    mendings: list[str] = []

    def say(line: str) -> None:
        mendings.append(line)
        note(f"{named}: {line}")

    fixed, sizes = fixed_shapes(shapes), sizes_of_axes(shapes)
    constants = constants_of(source, values)
    foreign = read_foreign(source, shapes, constants, cut_at, mendings.append)
    dropped = drop_given_outputs(foreign)
    if not foreign.graph.outputs:
        raise _nothing_left(source)
    read_scopes(foreign)
    specs = specs_of(source, list(foreign.graph.inputs), "input", fixed)
    integers = integer_inputs(foreign)
    kept = KeptInputs(None if inputs is None else relative_path(inputs, folder), preprocess, integers)
    real = () if inputs is None else read_inputs(inputs, specs, preprocess, integers).spread(MOST_REAL)
    digest = sha256_of(source, *external_files(source))
    progress("running it")
    synthetic = (sample for sample in signed_samples(specs, integers=integers) if sample.name in _SAMPLES)
    feeds = [dict(sample.feeds) for sample in (*synthetic, *real)]
    proto = onnx.load(source, load_external_data=False)
    floats, given = other_floats(proto), feeds
    if floats:
        given = [as_stated(proto, feed) for feed in feeds]
        feeds = [{name: array.astype(feeds[0][name].dtype) for name, array in feed.items()} for feed in given]
        say(
            f"its tensors of {' and '.join(sorted(floats))} become float32, in which every runtime computes"
            + ("; `toolkit convert -p fp16` makes a file of half the size again" if floats & HALVES else "")
        )
    outputs_given = dropped.keys() - {value.name for value in foreign.graph.outputs}
    with (
        SandboxProcess(Path(os.devnull), TIMEOUT_S, PRELOADED) as child,
        replacing_folder(folder, MANIFEST, "bundle") as building,
    ):
        at_fixed = len(feeds)
        if sizes:
            progress("running it at other sizes")
            as_source = partial(_as_source, proto if floats else None, constants)
            others = list(at_other_sizes(source, specs, shapes, sizes, integers, as_source, child, cut_at))
            given, feeds = [*given, *map(as_source, others)], [*feeds, *others]
        expected = [
            {name: value for name, value in one.items() if name not in outputs_given}
            for one in outputs_of_source(source, [feed | constants for feed in given], child, say, cut_at)
        ]
        plain = building / "plain.onnx"
        progress("bringing it to our opset")
        plain_files = save(foreign, plain)
        try:
            ours = run(plain, feeds)
        except ToolkitError as error:
            said = str(error).removeprefix(f"{plain}: ").replace(str(plain), "the graph")
            raise type(error)(f"{source}: brought to opset {OPSET}: {said}") from error
        _state_sizes(foreign, plain, ours)
        rounded = rounded_outputs(foreign)
        if floats:
            stated, halves = expected, bool(floats & HALVES)
            expected = [in_float32(theirs, one, halves, rounded) for theirs, one in zip(stated, ours, strict=True)]
            for line in not_compared(stated, expected):
                say(line)
        if found := difference(expected, ours, HALF_TOLERANCE if floats & HALVES else TOLERANCE, rounded):
            raise InvalidArtifact(f"{source}: brought to our opset it gives other outputs: {found}")
        progress("simplifying and preparing the graph")
        candidate = _Candidate(building / f"{ROLE}.onnx", ours if floats else expected, feeds, rounded, sizes)
        modules = _prepare(source, foreign, candidate, child, say)
        for file in plain_files:
            file.unlink()
        for output, why in (dropped | candidate.dropped_outputs).items():
            say(f"output {output!r} {why}")
        for name in [spec.name for spec in specs if spec.name not in candidate.input_names]:
            say(f"input {name!r}: no operator reads it, so the bundle leaves this input out")
        specs = tuple(spec for spec in specs if spec.name in candidate.input_names)
        sized = shapes_of_found(candidate.outputs, ours[:at_fixed])
        known = (shapes_of(ours[:at_fixed]) if sizes else {}) | sized
        outputs = specs_of(source, candidate.outputs, "output", known)
        if sizes:
            shown = " ".join(f"{spec.name}={','.join(map(str, spec.shape))}" for spec in specs)
            say(f"{', '.join(sizes)} stay open for ONNX Runtime; files for TFLite and all comparisons have {shown}")
        path, files = candidate.path, candidate.files
        artifact = Artifact(
            file=path.name,
            role=ROLE,
            format="onnx",
            precision="fp32",
            route=None,
            inputs=tuple(Binding.same(spec) for spec in specs),
            outputs=tuple(Binding.same(spec) for spec in outputs),
            sha256=sha256_of(*files),
            bytes=sum(file.stat().st_size for file in files),
            external_files=tuple(file.name for file in files[1:]),
            parent=None,
            tools={tool: version(tool) for tool in _TOOLS},
            architecture=None,
            modules=modules,
            axes=open_axes([*candidate.inputs, *candidate.outputs], [*feeds, *ours], sizes) if sizes or sized else None,
        )
        origin = WeightsOrigin(**{"origin": "checkpoint", "source": named.name, **(weights or {}), "sha256": digest})
        if candidate.is_quantized:
            say(
                "the model is quantized already: ONNX Runtime runs it as it is; files for TFLite have floats between "
                "their operators, so their outputs may lie as far apart as those of int8-static"
            )
        held = {name: values for name, values in kept.integers.items() if name in candidate.input_names}
        model: dict[str, Any] = {
            "name": folder.name,
            "kind": KIND,
            KEY: replace(kept, integers=held).to_json(),
            SOURCE: source_json(named, folder, fixed, cut_at),
            QUANTIZED: candidate.is_quantized,
            ROUNDED: [spec.name for spec in outputs if spec.name in rounded],
            MENDINGS: mendings,
            VALUES: values_json(constants),
        }
        bundle = Bundle(building, {key: value for key, value in model.items() if value}, origin, (artifact,))
        (bundle if judge is None else with_judge(bundle, judge)).write()
    return Bundle.open(folder)


def _state_sizes(model: ir.Model, path: Path, results: Outputs) -> None:
    """Give each output of a graph without sizes those that ONNX Runtime infers from its file, in place.

    ONNX Runtime knows the operators of its own domains. Sizes other than those of `results` are removed.
    """
    if any(value.shape is None or not value.shape.is_static() for value in model.graph.outputs):
        inferred = sizes_by_runtime(path)
        for value in model.graph.outputs:
            if value.shape is None or not value.shape.is_static():
                value.shape = ir.Shape(inferred[str(value.name)])
    for value in model.graph.outputs:
        sizes = tuple(value.shape or ())
        if (
            value.shape is not None
            and value.shape.is_static()
            and any(r[str(value.name)].shape != sizes for r in results)
        ):
            value.shape = None


def _as_source(model: onnx.ModelProto | None, constants: Values, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs as the source takes them. model: the source, if its floats are others than those of the inputs."""
    return (dict(feed) if model is None else as_stated(model, feed)) | dict(constants)


class _Candidate:
    """The file of a prepared graph, written and compared with the source again for each graph that is tried."""

    def __init__(
        self, path: Path, expected: Outputs, feeds: Feeds, rounded: Collection[str], sizes: Mapping[str, int]
    ) -> None:
        """sizes: of the graph's open axes, which the file states."""
        self.path = path
        self._sizes = sizes
        self._rounded = rounded
        self._expected = expected
        self._feeds = feeds
        self.files: tuple[Path, ...] = ()
        self.dropped_outputs: dict[str, str] = {}
        self.input_names: frozenset[str] = frozenset()
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.is_quantized = False

    def fault_of(self, model: ir.Model) -> str | None:
        """Write a graph, without the inputs that nothing reads. Returns what is wrong with it, or None.

        The given graph stays as it is. A wrong graph is invalid, does not run on ONNX Runtime, or computes something
        else than the source.
        """
        stated = name_found_axes(infer_shapes(model))
        self.dropped_outputs = drop_given_outputs(stated)
        drop_unread_inputs(stated)
        self.inputs = list(stated.graph.inputs)
        self.input_names = frozenset(str(value.name) for value in self.inputs)
        self.outputs = list(stated.graph.outputs)
        self.is_quantized = is_quantized(stated)
        if not self.outputs:
            return None
        for file in self.files:
            file.unlink()
        if self._sizes:
            stated.metadata_props[SIZES] = json.dumps(self._sizes)
        self.files = save(stated, self.path)
        given = [{name: value for name, value in feed.items() if name in self.input_names} for feed in self._feeds]
        try:
            check(self.path)
            expected = [{n: v for n, v in one.items() if n not in self.dropped_outputs} for one in self._expected]
            return difference(expected, run(self.path, given), rounded=self._rounded)
        except InvalidArtifact as error:
            return str(error).removeprefix(f"{self.path}: ").replace(str(self.path), self.path.name)


def _prepare(
    source: Path, foreign: ir.Model, candidate: _Candidate, child: SandboxProcess, note: Callable[[str], None]
) -> dict[str, str] | None:
    """Prepare a graph and write it as the file of `candidate`. Returns the modules of its nodes, see modules_by_node.

    A graph that is wrong with all passes is prepared pass by pass, and `note` names each pass that is left out and why.
    Raises InvalidInput if no operator is left.
    """
    steps = steps_with(child)
    try:
        model, _ = prepare(foreign.clone(), {}, steps, stepwise=False)
        found = candidate.fault_of(model)
    except Exception as error:  # noqa: BLE001  a graph of any origin may make a pass raise anything
        found = one_line(error)
    if found is not None:
        model, left_out = prepare_without_faults(foreign.clone(), steps, candidate.fault_of)
        for name, why in left_out.items():
            note(f"prepared without the pass {name}: {why}")
        if (found := candidate.fault_of(model)) is not None:
            note(f"not prepared at all: {found}")
            model = foreign
            if (found := candidate.fault_of(model)) is not None:
                raise InvalidArtifact(f"{source}: written again it is not the same: {found}")
    if not candidate.outputs:
        raise _nothing_left(source)
    return modules_by_node(model)


def _nothing_left(source: Path) -> InvalidInput:
    return InvalidInput(f"{source}: no operator is left of it: its outputs do not depend on its inputs' values")
