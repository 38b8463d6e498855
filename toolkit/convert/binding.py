"""Finds the layouts and dtypes of a TFLite file's tensors, and measures how far a file is from the float32 graph."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, one_line
from backends.flatbuffer import check_tflite
from backends.litert import open_interpreter
from backends.precision import find_recipe
from backends.registry import default_backend
from backends.session import Session
from backends.tensor import LAYOUTS, Array, Binding, TensorSpec, filler

# Permutations of axes from NCHW to NHWC and back.
_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class Bound:
    """An artifact with the bindings of its file. error: as `relative_error` measures it, with these bindings."""

    artifact: Artifact
    error: float


def bind_tflite(path: Path, draft: Artifact, feeds: Mapping[str, Array], expected: Mapping[str, Array]) -> Bound:
    """Return `draft`, whose bindings are those of the ONNX file, with the bindings of the TFLite file at `path`.

    Tensors are matched by the names of the file's signature. Most shapes allow only one layout. A tensor with as many
    channels as rows and columns gets the layout with which the outputs are nearest to `expected`: the file is opened
    once, and run at most twice for each such input and twice more. Whether the file is good is not judged here.
    Raises InvalidArtifact if LiteRT cannot run the file, or if the signature has other tensors than the draft.
    """
    found = _signature(path)
    choices = {
        side: [
            [*_bindings(binding.spec, found[side].pop(binding.spec.name, None), path)]
            for binding in getattr(draft, side)
        ]
        for side in ("inputs", "outputs")
    }
    if left := [*found["inputs"], *found["outputs"]]:
        raise InvalidArtifact(f"{path}: the file has tensors that the graph does not: {', '.join(left)}")

    def bound(second: Collection[str]) -> Artifact:
        """Return the artifact with the second layout for the tensors named in `second`, the first for all others."""
        chosen = {side: tuple(found[found[0].spec.name in second] for found in choices[side]) for side in choices}
        return replace(draft, inputs=chosen["inputs"], outputs=chosen["outputs"])

    with default_backend(draft.format).session(path, bound(()), threads=1) as session:
        second, errors = _nearest_layouts(session, _undecided(choices), feeds, expected)
    return Bound(bound(second), max(errors.values()))


def _undecided(choices: Mapping[str, Sequence[Sequence[Binding]]]) -> dict[str, list[str]]:
    """Return, for each side ("inputs" or "outputs"), the names of the tensors whose shapes allow two layouts."""
    return {
        side: [bindings[0].spec.name for bindings in tensors if len(bindings) > 1] for side, tensors in choices.items()
    }


def _nearest_layouts(
    session: Session, undecided: Mapping[str, Sequence[str]], feeds: Mapping[str, Array], expected: Mapping[str, Array]
) -> tuple[set[str], dict[str, float]]:
    """Return the undecided tensors whose second layout gives smaller errors, and the relative error of each output with
    these layouts.

    session: opened with the first layout of each tensor. The first layout is kept where both give the same error.
    """

    def run(turned: set[str]) -> tuple[float, set[str], dict[str, float]]:
        given = {n: np.ascontiguousarray(v.transpose(_TO_LAST)) if n in turned else v for n, v in feeds.items()}
        got = session.run(given)
        errors = {name: _relative(got[name], value) for name, value in expected.items()}
        others = {name: _relative(got[name].transpose(_TO_FIRST), expected[name]) for name in undecided["outputs"]}
        nearer = {name: error for name, error in others.items() if error < errors[name]}
        errors |= nearer
        return sum(errors.values()), turned | nearer.keys(), errors

    inputs = undecided["inputs"]
    best = run(set())
    if not inputs:
        return best[1:]
    # Most files use one layout for all inputs. Start from the better of the two, then switch one input after the other.
    best = min(best, run(set(inputs)), key=lambda result: result[0])
    for name in [*inputs, *inputs]:
        turned = (best[1] & set(inputs)) ^ {name}
        tried = run(turned)
        if tried[0] < best[0] or (tried[0] == best[0] and name not in turned):
            best = tried
    return best[1:]


def check_error(path: Path, precision: str, error: float) -> None:
    """Raise InvalidArtifact if the error of a file, as `relative_error` measures it, is over its precision's limit.

    The limit tells a fault of the conversion from rounding. It is for kinds of model that have no other check.
    """
    limit = find_recipe(precision).limit("binding_error")
    if not error <= limit:
        raise InvalidArtifact(
            f"{path.name}: differs from the float32 graph by {error:.2g} of its outputs' size, "
            f"expected at most {limit:g} for {precision}"
        )


def relative_error(path: Path, artifact: Artifact, feeds: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Run a file. Return the RMS of the difference over the RMS of `expected`, of the worst output.

    The error is infinite if an output has NaN or infinity.
    """
    with default_backend(artifact.format).session(path, artifact, threads=1) as session:
        got = session.run(feeds)
    return max(_relative(got[name], value) for name, value in expected.items())


def _relative(got: Array, expected: Array) -> float:
    if got.shape != expected.shape and got.ndim == expected.ndim:  # of as many results as the graph finds
        got, expected = (_filled(side, np.maximum(got.shape, expected.shape)) for side in (got, expected))
    error = _norm(_doubles(got) - _doubles(expected)) / max(_norm(_doubles(expected)), 1e-12)
    return error if np.isfinite(error) else float("inf")


def _filled(values: Array, sizes: Array) -> Array:
    added = [(0, int(size) - had) for size, had in zip(sizes, values.shape, strict=True)]
    return np.pad(values, added, constant_values=filler(values.dtype))


def _doubles(values: Array) -> Array:
    return values.astype(np.float64)  # booleans cannot be subtracted


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values))


def _signature(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Read a file's signature: "inputs" or "outputs" -> name -> LiteRT's description of the tensor.

    Raises InvalidArtifact if LiteRT cannot load the file.
    """
    check_tflite(path)
    try:
        interpreter = open_interpreter(path)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise InvalidArtifact(f"{path}: LiteRT cannot load what the converter made: {one_line(error)}") from error
    return {"inputs": dict(runner.get_input_details()), "outputs": dict(runner.get_output_details())}


def _bindings(spec: TensorSpec, detail: dict[str, Any] | None, path: Path) -> Iterable[Binding]:
    """Yield every binding with which the file's tensor can hold `spec`: one for each layout that the shape allows.

    Raises InvalidArtifact if the file has no such tensor, or its shape allows no layout.
    """
    if detail is None:
        raise InvalidArtifact(f"{path}: the file's signature has no tensor {spec.name!r}")
    shape = tuple(int(size) for size in detail["shape"])
    dtype = np.dtype(detail["dtype"]).name
    scale, zero_point = detail["quantization"]
    quantization = (float(scale), int(zero_point)) if scale else (None, None)
    found = False
    for layout in LAYOUTS if spec.layout else (None,):
        if (layout is None) != (spec.layout is None):
            continue
        try:
            binding = Binding(spec, TensorSpec(detail["name"], shape, dtype, layout), *quantization)
        except InvalidArtifact:
            continue  # the shape does not allow this layout
        found = True
        yield binding
    if not found:
        raise InvalidArtifact(f"{path}: tensor {spec.name!r} is {dtype} {shape}, which cannot hold {spec.shape}")
