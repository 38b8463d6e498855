"""onnxsim: constant folding, dead code, batch norms folded into convolutions."""

import onnx_ir as ir
import onnxsim

from backends.errors import InvalidArtifact


def simplify(model: ir.Model) -> tuple[ir.Model, bool]:
    """Simplify a graph. Returns it and whether anything changed. Raises InvalidArtifact if onnxsim fails.

    Its own check is off: every caller compares the graph before and after by itself, to a stated tolerance.
    """
    before = ir.to_proto(model)
    try:
        after, _ = onnxsim.simplify(before, check_n=0)
    except (RuntimeError, ValueError) as error:
        raise InvalidArtifact(f"onnxsim cannot simplify {model.graph.name!r}: {error}") from error
    if after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True):
        return model, False
    return ir.from_proto(after), True
