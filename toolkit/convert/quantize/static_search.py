"""Makes the static file of a graph for ONNX Runtime, and puts the layers that hurt most back to float32 until it passes
its judgement."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from backends.artifact import Artifact
from backends.recipe import Recipe
from graphs.onnx.file import save
from toolkit.convert.calibration import Calibrated
from toolkit.convert.job import Job
from toolkit.convert.outcome import Made
from toolkit.convert.quantize.search import largest_count
from toolkit.convert.quantize.static import integer_ends, observed_tensors, quantize_static, static_layers
from toolkit.convert.rules import QUANTIZED
from toolkit.convert.weights import NothingToChange

# Layers are tried in groups of neighbours, each of which costs a file and a run: at least and at most this many, and
# between these as many as have so many bytes of float32 files together.
LEAST_GROUPS, MOST_GROUPS = 8, 48
_GROUP_BYTES = 1 << 30
_SHOWN = 5

# Groups of layers -> the error of a file in which these alone are quantized.
Alone = Callable[[Sequence[Sequence[str]]], list[float]]


def make_static_onnx(job: Job, recipe: Recipe, calibrated: Calibrated) -> Made:
    """Quantize the graph to a static ONNX file and judge it. Where the rules search layers, the file is the one that
    `put_back` finds; a file that is integers throughout has no layers in float32.

    A graph that is quantized already keeps its own scales: its full file takes and gives integers by them.
    Raises as Job.judged_onnx does, and NothingToChange for any other file of a graph that is quantized already.
    """
    if job.bundle.model.get(QUANTIZED):
        return _with_own_scales(job, recipe)
    names = [layer.name for layer in static_layers(ir.load(job.reference.path).graph)]
    ranges = job.observe(calibrated, partial(observed_tensors, recipe=recipe))
    job.progress(f"quantizing to {recipe.name} (ONNX Runtime)")

    def write(in_float: Collection[str]) -> tuple[Artifact, tuple[Path, ...]]:
        model = quantize_static(ir.load(job.reference.path), recipe, ranges, job.folder, in_float)
        parent = job.reference.artifact
        inputs, outputs = parent.inputs, parent.outputs
        if recipe.is_integer:
            inputs, outputs = integer_ends(model, inputs, outputs)
        files = save(model, job.folder / f"{parent.role}.{recipe.name}.onnx")
        return replace(job.onnx_artifact(recipe, files), inputs=inputs, outputs=outputs), files

    def make(in_float: Collection[str]) -> Made:
        artifact, files = write(in_float)
        return job.judged_onnx(recipe, artifact, files)

    def alone(groups: Sequence[Sequence[str]]) -> list[float]:
        errors = []
        for i, group in enumerate(groups):
            job.progress(f"layers {i + 1} of {len(groups)} alone (ONNX Runtime)")
            artifact, files = write(set(names) - set(group))
            errors.append(job.error(files[0], artifact))
        return errors

    if recipe.is_integer or not job.rules.searches_layers:
        return make(())
    return put_back(names, job.reference.artifact.bytes, make, alone)


def _with_own_scales(job: Job, recipe: Recipe) -> Made:
    """Make the full file of a graph that is quantized already: the graph, but with integers as inputs and outputs."""
    parent = job.reference.artifact
    model = ir.load(job.reference.path)
    inputs, outputs = integer_ends(model, parent.inputs, parent.outputs) if recipe.is_integer else ((), ())
    if (*inputs, *outputs) in ((), (*parent.inputs, *parent.outputs)):
        raise NothingToChange(
            f"{recipe.name} is impossible here: {parent.file} is quantized already, and ONNX Runtime runs it by its "
            "own scales; use fp32, which is that file"
        )
    files = save(model, job.folder / f"{parent.role}.{recipe.name}.onnx")
    artifact = replace(job.onnx_artifact(recipe, files), inputs=inputs, outputs=outputs)
    return job.judged_onnx(recipe, artifact, files)


def put_back(names: Sequence[str], nbytes: int, make: Callable[[Collection[str]], Made], alone: Alone) -> Made:
    """Return the file with the fewest layers in float32 that is within its tolerance.

    Only if the file with every layer quantized is not, and the file with none is, layers are ranked by the error that
    each alone makes, and the shortest start of the ranking that suffices is put back. If no layer could stay quantized,
    the file with every layer quantized is returned, which is over its tolerance.
    names: of all layers in running order. nbytes: of the float32 file. make: makes and judges the file with some layers
    in float32. alone: measures groups of layers.
    """
    whole = make(())
    if not whole.over or not names:
        return whole
    if make(names).over:  # rounding of the weights alone is too much
        return make(())
    count = max(LEAST_GROUPS, min(MOST_GROUPS, _GROUP_BYTES // nbytes))
    groups = [list(group) for group in np.array_split(np.array(names, object), min(count, len(names)))]
    ranked = sorted(zip(alone(groups), groups, strict=True), key=lambda one: -one[0])

    def over(count: int) -> bool:
        return bool(make([name for _, group in ranked[:count] for name in group]).over)

    count = 1 + largest_count(over, len(ranked) - 1)
    if count == len(ranked):
        return make(())
    kept = [name for _, group in ranked[:count] for name in group]
    shown = ", ".join(kept[:_SHOWN]) + (f" and {len(kept) - _SHOWN} more" if len(kept) > _SHOWN else "")
    note = (
        f"{whole.artifact.file}: {len(kept)} of {len(names)} layers compute in float32, with int8 weights, or it would "
        f"be over its tolerance: {shown}"
    )
    return replace(make(kept), notes=(note,))
