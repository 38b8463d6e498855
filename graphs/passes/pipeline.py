"""onnxsim: constant folding, dead code, what is left of shapes. It never sees the large weights."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import RemoveUnusedNodesPass

from backends.errors import InvalidArtifact, one_line
from backends.tensor import Array
from graphs.onnx.file import check, save
from graphs.onnx.weights import attach_weights, detach_weights
from graphs.passes.activation import erf_to_gelu, scale_elu, write_out_log_softmax
from graphs.passes.attention import split_qkv, split_queries
from graphs.passes.convolution import (
    fold_batch_norm,
    patches_to_depth,
    split_depthwise,
    split_large_conv,
    transposed_to_conv,
)
from graphs.passes.layout import keep_rows, pin_io_layout, reflect_by_slices
from graphs.passes.linear import fold_affine, fold_scale, matmul_to_gemm
from graphs.passes.lowering import keep_small_bounds, slice_uneven_splits, widen_small_integers
from graphs.passes.norm import (
    fold_norm,
    layer_norm_over_channels,
    reduce_l2_to_sum,
    shorten_grn,
    write_out_layer_norm,
    write_out_lp_norm,
)
from graphs.passes.positions import einsum_to_matmul, join_relative_positions


def simplify(model: ir.Model) -> tuple[ir.Model, bool]:
    """Simplify a graph. Returns it and whether anything changed. Raises InvalidArtifact if onnxsim fails.

    Weights of LARGE_BYTES and more are inputs meanwhile, so that time and memory do not grow with them.
    Its own check is off: every caller compares the graph before and after by itself, to a stated tolerance.
    """
    import onnxsim  # brings torch where that is installed, and a conversion, which imports this, needs neither

    taken = detach_weights(model)
    try:
        # onnxsim gets no path, beside which it could look for values that lie in a file of their own.
        before = ir.to_proto(ir.external_data.load_to_model(model))
        try:
            after, _ = onnxsim.simplify(before, check_n=0)
        except (RuntimeError, ValueError) as error:
            raise InvalidArtifact(f"onnxsim cannot simplify {model.graph.name!r}: {error}") from error
    finally:
        attach_weights(model, taken)
    if after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True):
        return model, False
    simplified = ir.from_proto(after)
    attach_weights(simplified, taken)
    return simplified, True


@dataclass(frozen=True)
class Pass:
    """A rewrite and how far it may move an output: max abs difference over the largest absolute value before."""

    name: str
    run: Callable[[ir.Model], tuple[ir.Model, bool]]
    tolerance: float


# Float32 sums in another order, over the depth of these networks.
_ROUNDING = 2e-5

# The order matters: onnxsim hides the erf pattern, and makes Gemm of its own, not transposed, of what MatMul it finds.
# What each is worth on each runtime: benchmarks/prepare_passes.py.
PASSES = (
    Pass("fold_batch_norm", fold_batch_norm, tolerance=_ROUNDING),
    Pass("erf_to_gelu", erf_to_gelu, tolerance=_ROUNDING),
    Pass("matmul_to_gemm", matmul_to_gemm, tolerance=_ROUNDING),
    Pass("reduce_l2_to_sum", reduce_l2_to_sum, tolerance=_ROUNDING),
    Pass("shorten_grn", shorten_grn, tolerance=_ROUNDING),
    # The kernel rounds differently, and a division by a small deviation makes that visible (2.4e-5 on a tiny UNet).
    Pass("layer_norm_over_channels", layer_norm_over_channels, tolerance=1e-4),
    Pass("fold_affine", fold_affine, tolerance=_ROUNDING),
    Pass("simplify", simplify, tolerance=_ROUNDING),
    # By the shapes that onnxsim has inferred.
    Pass("keep_rows", keep_rows, tolerance=_ROUNDING),
    Pass("split_qkv", split_qkv, tolerance=_ROUNDING),
    Pass("fold_norm", fold_norm, tolerance=_ROUNDING),
    Pass("fold_scale", fold_scale, tolerance=_ROUNDING),
    Pass("join_relative_positions", join_relative_positions, tolerance=_ROUNDING),
    Pass("split_queries", split_queries, tolerance=_ROUNDING),
    # What is left of relative positions.
    Pass("einsum_to_matmul", einsum_to_matmul, tolerance=_ROUNDING),
)

# For TFLite alone, on the graph that is about to be lowered: ONNX Runtime has one kernel for each of what these split.
LOWERING_PASSES = (
    Pass("widen_small_integers", widen_small_integers, tolerance=0.0),
    Pass("split_depthwise", split_depthwise, tolerance=_ROUNDING),
    Pass("split_large_conv", split_large_conv, tolerance=_ROUNDING),
    Pass("patches_to_depth", patches_to_depth, tolerance=_ROUNDING),
    Pass("transposed_to_conv", transposed_to_conv, tolerance=_ROUNDING),
    Pass("reflect_by_slices", reflect_by_slices, tolerance=0.0),
    Pass("write_out_layer_norm", write_out_layer_norm, tolerance=1e-4),
    Pass("keep_small_bounds", keep_small_bounds, tolerance=0.0),
    Pass("scale_elu", scale_elu, tolerance=_ROUNDING),
    Pass("write_out_lp_norm", write_out_lp_norm, tolerance=_ROUNDING),
    Pass("write_out_log_softmax", write_out_log_softmax, tolerance=_ROUNDING),
    Pass("slice_uneven_splits", slice_uneven_splits, tolerance=0.0),
    Pass("pin_io_layout", pin_io_layout, tolerance=0.0),
)


def prepare(
    model: ir.Model, feeds: Mapping[str, Array], passes: tuple[Pass, ...] = PASSES, stepwise: bool = True
) -> tuple[ir.Model, tuple[str, ...]]:
    """Run every pass, and compare its graph with the one before on `feeds` (inputs by name).

    stepwise=False compares nothing: each comparison writes the whole model to a file and loads it, which a model of
    gigabytes does better once. The caller then holds the result to the torch module.
    Returns the graph and the names of the passes that changed it. Raises InvalidArtifact naming the pass that
    made a graph that is invalid, gives NaN, or differs by more than the pass allows.
    """
    changed_by = []
    expected = run_once(model, feeds, "the graph as exported") if stepwise else {}
    for step in passes:
        model, changed = step.run(model)
        if not changed:
            continue
        changed_by.append(step.name)
        RemoveUnusedNodesPass()(model)  # constants that were folded into others, too
        if not stepwise:
            continue
        got = run_once(model, feeds, f"after pass {step.name}")
        for name in expected:
            _compare(step, name, expected[name], got[name])
        expected = got
    return model, tuple(changed_by)


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


def _compare(step: Pass, name: str, expected: Array, got: Array) -> None:
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise InvalidArtifact(f"pass {step.name}: output {name!r} became {got.shape}, finite: {np.isfinite(got).all()}")
    difference = float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if difference > step.tolerance:
        raise InvalidArtifact(
            f"pass {step.name}: output {name!r} moved by {difference:.1e} of its range, at most {step.tolerance:.1e}"
        )
