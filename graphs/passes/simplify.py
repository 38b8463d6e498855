"""The pass that runs onnxsim (constant folding, dead code, shapes), and the pass that restores what onnxsim drops."""

import numpy as np
import onnx_ir as ir

from backends.errors import InvalidArtifact
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array
from graphs.onnx.apart import run_onnxsim
from graphs.onnx.readers import static_shape
from graphs.onnx.rewriting import RECURRENT, add_constant, forget_shapes
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


# onnxsim drops initial states that are zeros, as they are by default. Then onnx2tf keeps the states in variables, which
# start each run of the TFLite file with the states at the end of the run before.
@graph_pass("export", tolerance=0.0, after="simplify")
def state_initial(model: ir.Model) -> tuple[ir.Model, bool]:
    """Give each LSTM, GRU and RNN of known sizes its initial states, and its first output a name.

    An initial state that a node does not name is zeros.
    """
    changed = False
    for node in [node for node in model.graph if node.op_type in RECURRENT and not node.domain]:
        if not node.outputs[0].name:
            node.outputs[0].name = f"{node.name or next(v.name for v in node.outputs if v.name)}.all_states"
            changed = True
        for position in (5, 6) if node.op_type == "LSTM" else (5,):
            if position < len(node.inputs) and node.inputs[position] is not None:
                continue
            if (zeros := _zero_state(node)) is None:
                break
            name = f"{node.outputs[0].name}.initial_{'hc'[position - 5]}"
            if position >= len(node.inputs):
                node.resize_inputs(position + 1)
            node.replace_input_with(position, add_constant(model.graph, name, zeros))
            changed = True
    return model, changed


def _zero_state(node: ir.Node) -> Array | None:
    """Return zeros as the initial state of a recurrent layer, or None where its sizes are not known."""
    x, weight, recurrent = (static_shape(value) for value in node.inputs[:3])
    dtype = None if node.inputs[0] is None else node.inputs[0].dtype
    if x is None or weight is None or recurrent is None or dtype is None:
        return None
    batch_first = node.attributes.get_int("layout", 0) == 1
    directions, batch, hidden = weight[0], x[0 if batch_first else 1], recurrent[2]
    return np.zeros((batch, directions, hidden) if batch_first else (directions, batch, hidden), dtype.numpy())
