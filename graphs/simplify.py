"""onnxsim: constant folding, dead code, what is left of shapes. It never sees the large weights."""

import onnx_ir as ir

from backends.errors import InvalidArtifact
from graphs.large_weights import put_back, set_aside


def simplify(model: ir.Model) -> tuple[ir.Model, bool]:
    """Simplify a graph. Returns it and whether anything changed. Raises InvalidArtifact if onnxsim fails.

    Weights of LARGE_BYTES and more are inputs meanwhile, so that time and memory do not grow with them.
    Its own check is off: every caller compares the graph before and after by itself, to a stated tolerance.
    """
    import onnxsim  # brings torch where that is installed, and a conversion, which imports this, needs neither

    taken = set_aside(model)
    try:
        # onnxsim gets no path, beside which it could look for values that lie in a file of their own.
        before = ir.to_proto(ir.external_data.load_to_model(model))
        try:
            after, _ = onnxsim.simplify(before, check_n=0)
        except (RuntimeError, ValueError) as error:
            raise InvalidArtifact(f"onnxsim cannot simplify {model.graph.name!r}: {error}") from error
    finally:
        put_back(model, taken)
    if after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True):
        return model, False
    simplified = ir.from_proto(after)
    put_back(simplified, taken)
    return simplified, True
