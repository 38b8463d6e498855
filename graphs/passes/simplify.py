"""The pass that runs onnxsim: constant folding, dead code, shapes. onnxsim never sees the large weights."""

import onnx_ir as ir

from backends.errors import InvalidArtifact
from graphs.onnx.rewriting import forget_shapes
from graphs.onnx.weights import attach_weights, detach_weights
from graphs.passes.registry import graph_pass


# It runs late: onnxsim changes the Erf of a GELU, and turns a MatMul into a Gemm whose weight is not transposed.
@graph_pass("export", after="fold_affine")
def simplify(model: ir.Model) -> tuple[ir.Model, bool]:
    """Simplify a graph. Returns it and whether anything changed. Raises InvalidArtifact if onnxsim fails.

    Weights of LARGE_BYTES and more are inputs meanwhile, so that time and memory do not grow with them. The check
    inside onnxsim is off: every caller compares the graph before and after, to a stated tolerance.
    """
    import onnxsim  # imports torch if it is installed; a conversion imports this module and needs neither

    forget_shapes(model)  # onnxsim infers shapes itself
    taken = detach_weights(model)
    try:
        # onnxsim gets no path, so values that lie in another file must be in the model.
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
