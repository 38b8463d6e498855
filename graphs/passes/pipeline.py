"""Runs passes one after the other, and compares the graph after each with the graph before it, on ONNX Runtime."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import RemoveUnusedNodesPass

from backends.errors import InvalidArtifact, one_line
from backends.tensor import Array
from graphs.onnx.file import check, save
from graphs.onnx.modules import ModulesBefore
from graphs.onnx.rewriting import forget_shapes, state_shapes
from graphs.passes.registry import GraphPass, passes

LeaveOut = Callable[[str, str], None]  # called with the name of a pass and the reason why it is left out


def prepare(
    model: ir.Model,
    feeds: Mapping[str, Array],
    steps: Sequence[GraphPass] | None = None,
    stepwise: bool = True,
    leave_out: LeaveOut | None = None,
) -> tuple[ir.Model, tuple[str, ...]]:
    """Run passes, by default those of the export, and compare each graph with the one before on `feeds`, by input.

    stepwise=False compares nothing: each comparison writes the whole model to a file and loads it, which a model of
    gigabytes does better once. The caller then holds the result to the torch module.
    leave_out: called for each pass that fails, which is then undone and left out.
    Returns the graph and the names of the passes that changed it. Without `leave_out`, raises InvalidArtifact naming
    the pass that made a graph that is invalid, gives NaN, or differs by more than the pass allows.
    """
    changed_by = []
    expected = run_once(model, feeds, "the graph as exported") if stepwise else {}
    for step in passes("export") if steps is None else steps:
        before = None if leave_out is None else model.clone()
        try:
            model, changed = run_pass(step, model)
            if changed and stepwise:
                got = run_once(model, feeds, f"after pass {step.name}")
                for name in expected:
                    _compare(step, name, expected[name], got[name])
                expected = got
        except Exception as error:
            if leave_out is None or before is None:
                raise
            leave_out(step.name, one_line(error))  # also a bug in a pass: it must not cost the model
            model, changed = before, False
        if changed:
            changed_by.append(step.name)
    forget_shapes(model)
    return model, tuple(changed_by)


def run_pass(step: GraphPass, model: ir.Model) -> tuple[ir.Model, bool]:
    """Run one pass, remove unused nodes, and give the new tensors types and shapes and the new nodes modules.

    Returns the model, or another one in its place, and whether the pass changed anything.
    """
    before = ModulesBefore(model)
    model, changed = step(model)
    if changed:
        RemoveUnusedNodesPass()(model)  # removes constants that were folded into others, too
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
