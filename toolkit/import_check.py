"""Runs the file that is imported, and compares its outputs with those of a graph that was made of it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from backends.artifact import ANY_SIZE, FOUND
from backends.errors import InvalidArtifact, InvalidInput
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array, IntegerValues, TensorSpec
from graphs.onnx.apart import Feeds, Outputs, cut_model, run
from graphs.onnx.sizes import OpenAxis, Shapes, depends_on_values, most_along
from toolkit.metrics.error import FLOOR
from toolkit.metrics.samples import signed_samples

# The largest absolute difference over the range of the output; the same limit as for exports.
TOLERANCE = 1e-4
# The same for a file in float16 or bfloat16 beside its graph in float32: the file rounds each layer to 3 digits or 2.
HALF_TOLERANCE = 5e-2


def outputs_of_source(
    source: Path, feeds: Feeds, child: SandboxProcess, note: Callable[[str], None], cut_at: Sequence[str] = ()
) -> Outputs:
    """Return an ONNX file's outputs for each of `feeds` (maps from input names to arrays), computed by ONNX Runtime.

    cut_at: the names of tensors to return in place of the outputs.

    ONNX Runtime runs in `child`, since some files make it end the whole process. If it cannot run the file, the
    reference implementation of the onnx package does, and `note` is called with a line that says so.
    Raises InvalidArtifact if neither can run the file, or if two runs on the same inputs differ.
    """
    try:
        outputs = _run_apart(source, [*feeds, feeds[0]], child, cut_at)
    except InvalidArtifact as error:
        outputs = _run_by_reference(source, [*feeds, feeds[0]], error, cut_at)
        said = str(error).removeprefix(f"{source}: ")
        note(f"{said}; the imported graph is compared with onnx's reference implementation instead")
    if found := difference(outputs[:1], outputs[-1:]):
        raise InvalidArtifact(
            f"{source}: the same inputs give other outputs each time ({found}): a graph that draws random numbers "
            "cannot be compared with anything"
        )
    return outputs[:-1]


def _run_apart(path: Path, feeds: Feeds, child: SandboxProcess, cut_at: Sequence[str]) -> Outputs:
    try:
        return child.call(run, path, feeds, cut_at) if cut_at else child.call(run, path, feeds)
    except SandboxDied as ended:
        raise InvalidArtifact(
            f"{path}: ONNX Runtime {onnxruntime.__version__} crashes on this file: the process that ran it {ended}"
        ) from ended


def _run_by_reference(source: Path, feeds: Feeds, why: InvalidArtifact, cut_at: Sequence[str]) -> Outputs:
    try:
        with np.errstate(all="ignore"):
            model = onnx.load(source)
            if cut_at:
                model = cut_model(source, cut_at)
                onnx.load_external_data_for_model(model, str(source.parent))
            evaluator = ReferenceEvaluator(model)
            names = list(evaluator.output_names)
            results = [evaluator.run(names, dict(feed)) for feed in feeds]
    except Exception as error:  # the reference evaluator is plain Python and may raise any error
        raise why from error
    return [dict(zip(names, (np.asarray(value) for value in result), strict=True)) for result in results]


def at_other_sizes(
    source: Path,
    specs: Sequence[TensorSpec],
    shapes: Shapes,
    sizes: Mapping[str, int],
    integers: Mapping[str, IntegerValues],
    stated: Callable[[Mapping[str, Array]], dict[str, Array]],
    child: SandboxProcess,
    cut_at: Sequence[str] = (),
) -> Iterator[dict[str, Array]]:
    """Yield noise for the inputs of an ONNX file at other sizes of its open axes, at which ONNX Runtime runs the file.

    shapes, sizes: of the inputs and of the open axes by name. stated: returns inputs as the file takes them. All sizes
    are doubled together, or else halved, and that of the first axis is doubled alone. Where they do not change
    together, each is doubled or halved alone.
    Raises InvalidInput naming an axis of which ONNX Runtime runs the file at none of these sizes.
    """
    errors: list[InvalidArtifact] = []

    def feeds(ways: Sequence[Mapping[str, int]]) -> dict[str, Array] | None:
        """Return noise for the first of several ways to choose sizes with which the file runs, or None."""
        for way in (way for way in ways if way != sizes):
            specs_there = tuple(_sized(spec, shapes, way) for spec in specs)
            feed = dict(next(signed_samples(specs_there, integers=integers)).feeds)
            try:
                _run_apart(source, [stated(feed)], child, cut_at)
            except InvalidArtifact as error:
                errors.append(error)
                continue
            return feed
        return None

    def changed(names: Collection[str]) -> list[dict[str, int]]:
        doubled = {name: 2 * size if name in names else size for name, size in sizes.items()}
        return [doubled, {name: -(-size // 2) if name in names else size for name, size in sizes.items()}]

    together = feeds(changed(sizes))
    if together is not None:
        yield together
        alone = feeds(changed([next(iter(sizes))])[:1]) if len(sizes) > 1 else None
        if alone is not None:
            yield alone
        return
    for name, size in sizes.items():
        found = feeds(changed([name]))
        if found is None:
            raise InvalidInput(f"{source}: --input-shape: it runs at no other size of {name} than {size}: {errors[-1]}")
        yield found


def _sized(spec: TensorSpec, shapes: Shapes, sizes: Mapping[str, int]) -> TensorSpec:
    given = shapes.get(spec.name, spec.shape)
    return replace(spec, shape=tuple(sizes[one.name] if isinstance(one, OpenAxis) else one for one in given))


def shapes_of(results: Outputs) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the outputs that have the same in all results, which are of inputs of the same shapes."""
    shapes = {name: {one[name].shape for one in results} for name in results[0]}
    return {name: next(iter(seen)) for name, seen in shapes.items() if len(seen) == 1}


def shapes_of_found(outputs: Sequence[ir.Value], results: Outputs) -> dict[str, tuple[int, ...]]:
    """Return shapes of the outputs whose sizes depend on values: each size is the largest possible one, if it is known,
    and else the largest of `results`, at least 1."""
    shapes = {}
    for value in filter(depends_on_values, outputs):
        seen = [one[str(value.name)].shape for one in results]
        rank = len(seen[0])
        stated = value.shape if value.shape is not None and len(value.shape) == rank else [ir.SymbolicDim(None)] * rank
        shapes[str(value.name)] = tuple(
            most_along(size) or max(1, *(shape[at] for shape in seen)) for at, size in enumerate(stated)
        )
    return shapes


def open_axes(
    values: Sequence[ir.Value], runs: Sequence[Mapping[str, Array]], names: Collection[str]
) -> dict[str, tuple[str | None, ...]]:
    """Return the axes of the inputs and outputs that have open ones, see Artifact.axes.

    runs: inputs and outputs of runs at several sizes. names: of the inputs' open axes; the size of any other open axis
    follows from theirs, or from the number of results that are found. An axis is open if the graph does not state its
    size, or if the size differs between runs.
    """
    found = {}
    for value in values:
        name = str(value.name)
        shapes = [one[name].shape for one in runs if name in one]
        rank = len(shapes[0])
        stated = list(value.shape) if value.shape is not None and len(value.shape) == rank else [None] * rank
        any_size = FOUND if depends_on_values(value) else ANY_SIZE
        axes = tuple(
            None
            if isinstance(size, int) and len({shape[at] for shape in shapes}) == 1
            else str(size)
            if str(size) in names
            else any_size
            for at, size in enumerate(stated)
        )
        if any(axes):
            found[name] = axes
    return found


def difference(
    expected: Sequence[Mapping[str, Array]],
    got: Sequence[Mapping[str, Array]],
    tolerance: float = TOLERANCE,
    rounded: Collection[str] = (),
) -> str | None:
    """Describe the first output that differs, or return None.

    Outputs must have the same shapes, dtypes and places of NaN and infinity; finite floats may differ by `tolerance` of
    their range and always by FLOOR, the integers of outputs in `rounded` by 1 more than that, other values not at all.
    """
    for theirs, ours in zip(expected, got, strict=True):
        for name, value in theirs.items():
            if name not in ours:
                return f"{name!r} is missing"
            other = ours[name]
            if other.shape != value.shape or other.dtype != value.dtype:
                return f"{name!r} is {other.dtype} {other.shape}, expected {value.dtype} {value.shape}"
            if value.dtype.kind != "f" and name not in rounded:
                if not np.array_equal(value, other):
                    return f"{name!r} has other {value.dtype} values"
                continue
            a, b = value.astype(np.float64), other.astype(np.float64)
            finite = np.isfinite(a)
            if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
                return f"{name!r} has NaN or infinity in other places"
            if finite.any():
                scale = max(float(np.ptp(a[finite])), float(np.abs(a[finite]).max()))
                moved = float(np.abs(a[finite] - b[finite]).max())
                step = 1 if name in rounded else 0
                if not moved <= max(tolerance * scale, FLOOR) + step:
                    return (
                        f"{name!r} moved by {moved / scale if scale else np.inf:.1e} of its range, expected at most "
                        f"{tolerance:.0e}"
                    )
    return None


def as_stated(model: onnx.ModelProto, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs in the dtypes that a model states."""
    stated = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    return {
        name: array.astype(onnx.helper.tensor_dtype_to_np_dtype(stated[name]), copy=False)
        for name, array in feed.items()
    }


def in_float32(
    theirs: Mapping[str, Array], ours: Mapping[str, Array], halves: bool, rounded: Collection[str]
) -> dict[str, Array]:
    """Return the outputs of a file of other floats as those of its graph in float32 are compared with.

    halves: whether the file computes in float16 or bfloat16. Then numbers above the largest become infinity, and
    rounding puts equal scores into another order: infinity, and integers that are no `rounded` floats, are taken from
    `ours`.
    """
    outputs = {}
    for name, value in theirs.items():
        other = ours.get(name)
        is_float = value.dtype.kind not in "iub"
        if is_float:
            value = value.astype(np.float32)
        if halves and other is not None and other.shape == value.shape:
            if is_float:
                value = np.where(np.isfinite(value), value, other)
            elif name not in rounded:
                value = other
        outputs[name] = value
    return outputs


def not_compared(theirs: Outputs, compared: Outputs) -> Iterator[str]:
    """Yield a sentence for each output of integers whose values were not compared where they differ.

    theirs: the outputs of the file. compared: those that the imported graph is compared with, see in_float32.
    """
    for name, value in theirs[0].items():
        if value.dtype.kind not in "iub":
            continue
        pairs = [(one[name], other[name]) for one, other in zip(theirs, compared, strict=True)]
        if changed := sum(int((one != other).sum()) for one, other in pairs):
            yield (
                f"output {name!r} has other values than the file's at {changed} of {sum(one.size for one, _ in pairs)} "
                "places, which were not compared: a file in half precision rounds scores that are near each other to "
                "another order"
            )
