"""What a lowered file's tensors are, found by running it, and proof that it computes what the float32 graph does."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, one_line
from backends.flatbuffer import check_tflite
from backends.precision import find_recipe
from backends.registry import default_backend
from backends.tensor import LAYOUTS, Array, Binding, TensorSpec


def bind_tflite(path: Path, draft: Artifact, feeds: Mapping[str, Array], expected: Mapping[str, Array]) -> Artifact:
    """Complete `draft`, whose bindings are those of the ONNX file, with what the TFLite file at `path` holds.

    Tensors are matched by the names of the file's signature. Layouts are not guessed from shapes: every layout that
    a shape allows is tried, and the one whose outputs are nearest to `expected` is taken.
    Raises InvalidArtifact for another signature, or if even that one is further away than its precision allows.
    """
    found = _signature(path)
    choices = [
        [[*_bindings(binding.spec, found[side].pop(binding.spec.name, None), path)] for binding in getattr(draft, side)]
        for side in ("inputs", "outputs")
    ]
    if left := [*found["inputs"], *found["outputs"]]:
        raise InvalidArtifact(f"{path}: the file has tensors that the graph does not: {', '.join(left)}")
    candidates = [
        replace(draft, inputs=inputs, outputs=outputs)
        for inputs, outputs in itertools.product(itertools.product(*choices[0]), itertools.product(*choices[1]))
    ]
    errors = [relative_error(path, candidate, feeds, expected) for candidate in candidates]
    best = min(range(len(candidates)), key=errors.__getitem__)
    _check(path, candidates[best], errors[best])
    return candidates[best]


def check_onnx(path: Path, artifact: Artifact, feeds: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Raise InvalidArtifact if an ONNX file is further away from `expected` than its precision allows."""
    _check(path, artifact, relative_error(path, artifact, feeds, expected))


def relative_error(path: Path, artifact: Artifact, feeds: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Root mean square of the difference over that of `expected`, the worst of all outputs; NaN counts as infinite."""
    with default_backend(artifact.format).session(path, artifact, threads=1) as session:
        got = session.run(feeds)
    errors = [
        _norm(_doubles(got[name]) - _doubles(value)) / max(_norm(_doubles(value)), 1e-12)
        for name, value in expected.items()
    ]
    return max(error if np.isfinite(error) else float("inf") for error in errors)


def _doubles(values: Array) -> Array:
    return values.astype(np.float64)  # booleans cannot be subtracted


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values))


def _check(path: Path, artifact: Artifact, error: float) -> None:
    limit = find_recipe(artifact.precision).limit("binding_error")
    if not error <= limit:
        raise InvalidArtifact(
            f"{path.name}: differs from the float32 graph by {error:.2g} of its outputs' size, "
            f"expected at most {limit:g} for {artifact.precision}"
        )


def _signature(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """side -> name in the signature -> the runtime's description of the tensor."""
    check_tflite(path)
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise InvalidArtifact(f"{path}: LiteRT cannot load what the converter made: {one_line(error)}") from error
    return {"inputs": dict(runner.get_input_details()), "outputs": dict(runner.get_output_details())}


def _bindings(spec: TensorSpec, detail: dict[str, Any] | None, path: Path) -> Iterable[Binding]:
    """Every way in which the tensor of a file can hold `spec`."""
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
