"""onnxsim: constant folding, dead code, what is left of shapes. It never sees the large weights."""

import onnx_ir as ir

from backends.errors import InvalidArtifact
from graphs.onnx.shapes import forget_shapes
from graphs.onnx.weights import attach_weights, detach_weights
from graphs.passes.registry import graph_pass


# onnxsim hides the erf pattern, and makes Gemm of its own, not transposed, of the MatMul that it finds.
@graph_pass("export", after="fold_affine")
def simplify(model: ir.Model) -> tuple[ir.Model, bool]:
    """Simplify a graph. Returns it and whether anything changed. Raises InvalidArtifact if onnxsim fails.

    Weights of LARGE_BYTES and more are inputs meanwhile, so that time and memory do not grow with them.
    Its own check is off: every caller compares the graph before and after by itself, to a stated tolerance.
    """
    import onnxsim  # brings torch where that is installed, and a conversion, which imports this, needs neither

    forget_shapes(model)  # it infers them by itself
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
