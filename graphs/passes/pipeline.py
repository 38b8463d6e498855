"""Runs passes one after the other, and compares the graph after each with the graph before it, on ONNX Runtime."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from backends.errors import InvalidArtifact, one_line
from backends.tensor import Array
from graphs.onnx.file import check, save
from graphs.onnx.modules import ModulesBefore
from graphs.onnx.rewriting import forget_shapes, remove_unused_nodes, state_shapes
from graphs.passes.registry import GraphPass, passes


def prepare(
    model: ir.Model, feeds: Mapping[str, Array], steps: Sequence[GraphPass] | None = None, stepwise: bool = True
) -> tuple[ir.Model, tuple[str, ...]]:
    """Run passes, by default those of the export, and compare each graph with the one before on `feeds`, by input.

    stepwise=False compares nothing: each comparison writes the whole model to a file and loads it, which a model of
    gigabytes does better once. The caller then holds the result to the torch module.
    Returns the graph and the names of the passes that changed it. Raises InvalidArtifact naming the pass that
    made a graph that is invalid, gives NaN, or differs by more than the pass allows.
    """
    changed_by = []
    expected = run_once(model, feeds, "the graph as exported") if stepwise else {}
    for step in passes("export") if steps is None else steps:
        model, changed = run_pass(step, model)
        if not changed:
            continue
        changed_by.append(step.name)
        if not stepwise:
            continue
        got = run_once(model, feeds, f"after pass {step.name}")
        for name in expected:
            _compare(step, name, expected[name], got[name])
        expected = got
    forget_shapes(model)
    return model, tuple(changed_by)


def prepare_without_faults(
    model: ir.Model, steps: Sequence[GraphPass], fault: Callable[[ir.Model], str | None]
) -> tuple[ir.Model, dict[str, str]]:
    """Run passes and leave out each pass that raises an error or after which `fault` describes what is wrong.

    fault: returns None for a graph that is right; it must not change the graph.
    Returns the graph, and for each pass that was left out, by its name, what was wrong.
    """
    left_out: dict[str, str] = {}
    for step in steps:
        before = model.clone()
        try:
            after, changed = run_pass(step, model)
            found = fault(after) if changed else None
        except Exception as error:  # noqa: BLE001  a graph of any origin may make a pass raise anything
            found = one_line(error)
        if found is None:
            model = after
        else:
            model, left_out[step.name] = before, found
    forget_shapes(model)
    return model, left_out


def run_pass(step: GraphPass, model: ir.Model) -> tuple[ir.Model, bool]:
    """Run one pass, remove unused nodes, and give the new tensors types and shapes and the new nodes modules.

    Returns the model, or another one in its place, and whether the pass changed anything.
    """
    before = ModulesBefore(model)
    model, changed = step(model)
    if changed:
        remove_unused_nodes(model)  # removes constants that were folded into others, too
        state_shapes(model)
        before.carry_to(model)
    return model, changed


def run_once(model: ir.Model, feeds: Mapping[str, Array], what: str) -> dict[str, Array]:
    """Write the graph, check it, and run it on ONNX Runtime. Raises InvalidArtifact that says `what` failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        check(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; what the passes leave behind is checked here by its results
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except Exception as error:
            raise InvalidArtifact(f"{what}: ONNX Runtime cannot run it: {one_line(error)}") from error


def _compare(step: GraphPass, name: str, expected: Array, got: Array) -> None:
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise InvalidArtifact(f"pass {step.name}: output {name!r} became {got.shape}, finite: {np.isfinite(got).all()}")
    difference = float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if difference > step.tolerance:
        raise InvalidArtifact(
            f"pass {step.name}: output {name!r} moved by {difference:.1e} of its range, at most {step.tolerance:.1e}"
        )
