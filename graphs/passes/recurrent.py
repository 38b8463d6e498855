"""Passes over recurrent layers: their initial states are stated, and become tensors that the lowering computes."""

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx.readers import constant, static_shape
from graphs.onnx.rewriting import RECURRENT, add_constant, new_node, set_value_info
from graphs.passes.registry import graph_pass


# onnxsim drops initial states that are zeros, as they are by default. Then onnx2tf keeps the states in variables, which
# start each run of the TFLite file with the states at the end of the run before.
@graph_pass("export", tolerance=0.0, after="simplify")
def state_initial(model: ir.Model) -> tuple[ir.Model, bool]:
    """Give each LSTM, GRU and RNN of known sizes its initial states, and its first output a name.

    An initial state that a node does not name is zeros. Lengths of sequences that are all the whole length, and
    peepholes that are zeros, are left out: they change nothing, and no lowering has them.
    """
    changed = False
    for node in [node for node in model.graph if node.op_type in RECURRENT and not node.domain]:
        for position in (4, 7):
            if position < len(node.inputs) and node.inputs[position] is not None and _does_nothing(node, position):
                node.replace_input_with(position, None)
                changed = True
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


def _does_nothing(node: ir.Node, position: int) -> bool:
    """Return whether the lengths (input 4) or peepholes (input 7) of a recurrent layer are those of a plain layer."""
    values, x = constant(node.inputs[position]), static_shape(node.inputs[0])
    if values is None or x is None:
        return False
    whole = x[node.attributes.get_int("layout", 0)] if position == 4 else 0
    return bool((values == whole).all())


def _zero_state(node: ir.Node) -> Array | None:
    """Return zeros as the initial state of a recurrent layer, or None where its sizes are not known."""
    x, weight, recurrent = (static_shape(value) for value in node.inputs[:3])
    dtype = None if node.inputs[0] is None else node.inputs[0].dtype
    if x is None or weight is None or recurrent is None or dtype is None:
        return None
    batch_first = node.attributes.get_int("layout", 0) == 1
    directions, batch, hidden = weight[0], x[0 if batch_first else 1], recurrent[2]
    return np.zeros((batch, directions, hidden) if batch_first else (directions, batch, hidden), dtype.numpy())


# What an LSTM computes when it states none of these attributes.
_PLAIN_LSTM = frozenset({"hidden_size", "direction", "layout", "input_forget"})


@graph_pass("lowering", after="widen_small_integers")
def states_as_tensors(model: ir.Model) -> tuple[ir.Model, bool]:
    """Rewrite each LSTM with constant initial states, or of another direction than forward, as forward LSTMs.

    The new layers get their initial states as computed tensors. Only such a layer becomes plain operators in TFLite. Of
    all others onnx2tf makes the kernel that keeps its states in variables: a run then starts with the states at the end
    of the run before, and the last states are no outputs.
    """
    changed = sum(_with_states(model.graph, node) for node in list(model.graph) if node.op_type == "LSTM")
    return model, bool(changed)


def _with_states(graph: ir.Graph, node: ir.Node) -> bool:
    x, given = node.inputs[0], [*node.inputs, *[None] * 8][:8]
    sizes, weights = static_shape(x), [constant(value) for value in given[1:3]]
    direction = node.attributes.get_string("direction", "forward")
    is_plain = set(node.attributes) <= _PLAIN_LSTM and not any(
        node.attributes.get_int(name, 0) for name in ("layout", "input_forget")
    )
    states = given[5:7]
    if sizes is None or not is_plain or given[4] is not None or given[7] is not None or None in states:
        return False
    if any(weight is None for weight in weights) or (given[3] is not None and constant(given[3]) is None):
        return False
    if direction == "forward" and all(constant(state) is None for state in states):
        return False
    assert x is not None and weights[1] is not None
    name, hidden = node.name or str(node.outputs[0].name), int(weights[1].shape[2])
    made: list[ir.Node] = []

    def add(op_type: str, inputs: list[ir.Value | None], part: str, **attributes: int) -> ir.Value:
        made.append(new_node(op_type, inputs, attributes, output=f"{name}.{part}", name=f"{name}.{part}"))
        return made[-1].outputs[0]

    def fixed(part: str, array: Array) -> ir.Value:
        return add_constant(graph, f"{name}.{part}", array)

    first, one = fixed("first", np.zeros(3, np.int64)), fixed("one", np.ones(3, np.int64))
    corner = add("Slice", [x, first, one], "corner")
    # Zero, for every input, which the lowering does not take for a constant.
    zero = add("Cast", [add("Less", [corner, corner], "never")], "zero", to=int(ir.DataType.FLOAT))
    order = fixed("reversed", np.arange(sizes[0] - 1, -1, -1))
    results: list[list[ir.Value]] = []
    for number, backward in enumerate({"forward": (False,), "reverse": (True,)}.get(direction, (False, True))):
        tag = "backward" if backward else "forward"
        parts: list[ir.Value | None] = [add("Gather", [x, order], f"{tag}.x", axis=0) if backward else x]
        for label, value in zip("wrb", given[1:4], strict=True):
            array = constant(value)
            parts.append(None if array is None else fixed(f"{tag}.{label}", array[number : number + 1]))
        parts.append(None)
        for label, value in zip("hc", states, strict=True):
            array = constant(value)
            if array is not None:
                parts.append(add("Add", [zero, fixed(f"{tag}.{label}0", array[number : number + 1])], f"{tag}.{label}"))
            else:
                index = fixed(f"{tag}.{label}.index", np.array([number]))
                parts.append(add("Gather", [value, index], f"{tag}.{label}", axis=0))
        outputs = [ir.Value(name=f"{name}.{tag}.{label}") for label in ("all", "last_h", "last_c")]
        made.append(
            ir.node(
                "LSTM", parts, {"hidden_size": hidden, "direction": "forward"}, outputs=outputs, name=f"{name}.{tag}"
            )
        )
        if backward:
            outputs[0] = add("Gather", [outputs[0], order], f"{tag}.y", axis=0)
        results.append(outputs)
    graph.insert_before(node, made)
    for position, output in enumerate(node.outputs):
        if not output.name:
            continue
        joined = results[0][position]
        if len(results) > 1:
            parts = [result[position] for result in results]
            graph.insert_before(node, concat := ir.node("Concat", parts, {"axis": 0 if position else 1}))
            joined = concat.outputs[0]
        set_value_info(joined, str(output.name), output)
        output.replace_all_uses_with(joined, replace_graph_outputs=True)
        output.name = None
    graph.remove(node, safe=True)
    return True
