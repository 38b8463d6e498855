"""The pass that runs onnxsim: constant folding, dead code, shapes."""

import onnx_ir as ir

from backends.errors import InvalidArtifact
from backends.sandbox import SandboxDied, SandboxProcess
from graphs.onnx.apart import run_onnxsim
from graphs.onnx.rewriting import forget_shapes
from graphs.onnx.weights import attach_weights, detach_weights
from graphs.passes.registry import graph_pass


# It runs late: onnxsim changes the Erf of a GELU, and turns a MatMul into a Gemm whose weight is not transposed.
@graph_pass("export", after="fold_affine")
def simplify(model: ir.Model, child: SandboxProcess | None = None) -> tuple[ir.Model, bool]:
    """Simplify a graph. Returns it and whether anything changed. Raises InvalidArtifact if onnxsim fails.

    Weights of LARGE_BYTES and more are inputs meanwhile, so that time and memory do not grow with them; onnxsim never
    sees them. The check inside onnxsim is off: every caller compares the graph before and after, to a stated tolerance.
    child: the process in which onnxsim runs, for a graph that may crash it; None for this process.
    """
    forget_shapes(model)  # onnxsim infers shapes itself
    taken = detach_weights(model)
    try:
        # onnxsim gets no path, so values that lie in another file must be in the model.
        before = ir.to_proto(ir.external_data.load_to_model(model))
        try:
            after = run_onnxsim(before) if child is None else child.call(run_onnxsim, before)
        except (RuntimeError, ValueError, SandboxDied) as error:
            raise InvalidArtifact(f"onnxsim cannot simplify {model.graph.name!r}: {error}") from error
    finally:
        attach_weights(model, taken)
    if after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True):
        return model, False
    simplified = ir.from_proto(after)
    attach_weights(simplified, taken)
    return simplified, True
