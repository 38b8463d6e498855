"""The module of each node: read from the exporter's scopes, carried through what passes do, told to runtimes' names."""

from collections.abc import Callable

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from graphs.onnx.modules import Modules, ModulesBefore, folded, modules_by_node, read_scopes, scopes_of, set_modules
from graphs.onnx.rewriting import add_constant, new_node, replace_node
from graphs.passes.pipeline import run_pass
from graphs.passes.registry import GraphPass, find_pass

_GRAPH = """<ir_version: 10, opset_import: ["": 20]>
g (float[2,4] x) => (float[2,4] y)
<float[4,4] w1 = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float[4] b1 = {1,2,3,4},
 float[4,4] w2 = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> {
  product = MatMul(x, w1)
  first = Add(product, b1)
  bent = Gelu(first)
  y = MatMul(bent, w2)
}"""
_SCOPES = {
    "product": "['', 'body', 'body.mlp', 'body.mlp.fc1', 'linear']",
    "first": "['', 'body', 'body.mlp', 'body.mlp.fc1', 'linear']",
    "bent": "['', 'body', 'body.mlp', 'gelu']",
    "y": "['', 'body', 'body.mlp', 'body.mlp.fc2', 'linear_1']",
}


def _model(scopes: dict[str, str] | None = None) -> ir.Model:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(_GRAPH)))
    for node in model.graph:
        output = str(node.outputs[0].name)
        node.name = f"node_{output}"
        if scope := (_SCOPES if scopes is None else scopes).get(output):
            node.metadata_props["pkg.torch.onnx.name_scopes"] = scope
    read_scopes(model)
    return model


def test_the_scope_that_torch_writes_is_the_module_around_the_node() -> None:
    assert modules_by_node(_model()) == {
        "node_product": "body.mlp.fc1", "node_first": "body.mlp.fc1", "node_bent": "body.mlp", "node_y": "body.mlp.fc2",
    }  # fmt: skip


def test_a_node_in_no_module_belongs_to_the_whole_model() -> None:
    modules = modules_by_node(_model(_SCOPES | {"bent": "['', 'gelu']"}))
    assert modules is not None
    assert modules["node_bent"] == ""


def test_a_node_without_a_scope_belongs_to_the_nodes_that_read_it() -> None:
    modules = modules_by_node(_model({name: scope for name, scope in _SCOPES.items() if name != "product"}))
    assert modules is not None
    assert modules["node_product"] == "body.mlp.fc1"


def test_the_scoped_names_of_an_older_exporter_are_read() -> None:
    model = _model({})
    names = ["/layer1/layer1.0/fc1/MatMul", "/layer1/layer1.0/fc1/Add", "/Gelu", "/head/MatMul"]
    for node, name in zip(model.graph, names, strict=True):
        node.name = name
    modules = scopes_of(model)
    assert modules is not None
    assert list(modules.values()) == ["layer1.0.fc1", "layer1.0.fc1", "", "head"]


def test_the_scopes_in_names_of_tensorflow_are_read() -> None:
    model = _model({})
    names = [
        "StatefulPartitionedCall/StatefulPartitionedCall/net/block1/conv/Conv2D",
        "net/block1/conv/BiasAdd;net/block1/conv/Conv2D",
        "Gelu__12",
        "net/head/MatMul__7",
    ]
    for node, name in zip(model.graph, names, strict=True):
        node.name, node.outputs[0].name = name, f"{name}:0"
    modules = scopes_of(model)
    assert modules is not None
    assert list(modules.values()) == ["net.block1.conv", "net.block1.conv", "net.head", "net.head"]


def test_the_layers_in_names_of_paddle_are_read() -> None:
    model = _model({})
    names = [("p2o.Conv.0", "conv2d_12.tmp_0"), ("p2o.Add.0", "conv2d_12.tmp_1"), ("p2o.Mul.0", "p2o.Mul.1")]
    for node, (name, output) in zip(model.graph, [*names, ("p2o.MatMul.0", "linear_3.tmp_0")], strict=True):
        node.name, node.outputs[0].name = name, output
    modules = scopes_of(model)
    assert modules is not None
    assert list(modules.values()) == ["conv2d_12", "conv2d_12", "linear_3", "linear_3"]


def test_without_scopes_nothing_is_guessed() -> None:
    model = _model({})
    assert modules_by_node(model) is None
    ModulesBefore(model).carry_to(model)
    assert modules_by_node(model) is None


def test_modules_are_set_again_by_the_names_of_nodes() -> None:
    known = modules_by_node(_model())
    assert known is not None
    again = _model({})
    set_modules(again, known)
    assert modules_by_node(again) == known


def test_nodes_of_one_name_share_the_innermost_module_that_holds_them() -> None:
    model = _model()
    for node in model.graph:
        node.name = "same"
    assert modules_by_node(model) == {"same": "body.mlp"}


Rewrite = Callable[[ir.Model], tuple[ir.Model, bool]]


def _after(run: Rewrite) -> dict[str, str]:
    model, changed = run_pass(GraphPass("rewrite", "export", 0.0, (), run), _model())
    modules = modules_by_node(model)
    assert changed
    assert modules is not None
    return modules


def _tensor(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.outputs[0].name == name)


def test_a_linear_layer_stays_in_its_module() -> None:
    model, _ = run_pass(find_pass("matmul_to_gemm"), _model())
    modules = modules_by_node(model)
    assert modules is not None
    by_type = {(node.op_type, modules[str(node.name)]) for node in model.graph}
    assert by_type == {("Gemm", "body.mlp.fc1"), ("Gelu", "body.mlp"), ("Gemm", "body.mlp.fc2")}


def test_onnxsim_gives_every_node_its_module_back() -> None:
    model, _ = run_pass(find_pass("matmul_to_gemm"), _model())
    before = modules_by_node(model)
    for node in model.graph:  # what a file would keep
        node.name = f"{node.name}.again"
    simplified = ir.from_proto(ir.to_proto(model))
    ModulesBefore(model).carry_to(simplified)
    after = modules_by_node(simplified)
    assert before is not None
    assert after == {f"{name}.again": module for name, module in before.items()}


def test_what_replaces_nodes_of_several_modules_belongs_to_the_module_around_them() -> None:
    def join(model: ir.Model) -> tuple[ir.Model, bool]:
        last = _tensor(model, "y")
        replace_node(model.graph, last, [new_node("Tanh", [model.graph.inputs[0]], output="t", name="made")])
        return model, True

    assert _after(join) == {"made": "body.mlp"}


def test_of_the_replaced_nodes_those_of_the_same_type_decide() -> None:
    def join(model: ir.Model) -> tuple[ir.Model, bool]:
        last = _tensor(model, "y")
        gelu = new_node("Gelu", [model.graph.inputs[0]], output="g", name="gelu")
        product = new_node("Add", [gelu.outputs[0], last.inputs[1]], output="s", name="sum")
        replace_node(model.graph, last, [gelu, product])
        return model, True

    assert _after(join) == {"gelu": "body.mlp", "sum": "body.mlp.fc1"}


def test_what_is_put_before_a_node_that_stays_is_in_the_module_of_that_node() -> None:
    def scale(model: ir.Model) -> tuple[ir.Model, bool]:
        last = _tensor(model, "y")
        half = add_constant(model.graph, "places", np.ones(4, np.float32))
        scaled = new_node("Mul", [last.inputs[0], half], output="scaled", name="scale")
        model.graph.insert_before(last, scaled)
        last.replace_input_with(0, scaled.outputs[0])
        return model, True

    modules = _after(scale)
    assert modules["scale"] == "body.mlp.fc2"
    assert modules["node_bent"] == "body.mlp"


def test_a_node_behind_one_whose_output_it_takes_over_is_in_the_same_module() -> None:
    def cast(model: ir.Model) -> tuple[ir.Model, bool]:
        bent = _tensor(model, "bent")
        result = new_node("Identity", [bent.outputs[0]], output="result", name="behind")
        bent.outputs[0].replace_all_uses_with(result.outputs[0])
        result.replace_input_with(0, bent.outputs[0])
        bent.outputs[0].name, result.outputs[0].name = "bent_inside", "bent"
        model.graph.insert_after(bent, result)
        return model, True

    assert _after(cast)["behind"] == "body.mlp"


def test_a_runtime_may_add_to_a_name_and_a_number_is_not_cut() -> None:
    modules = Modules({"conv": "stem", "conv_1": "stages.0.dw", "conv_12": "head"})
    names = ["conv_nchwc", "conv_1.rows0_output", "conv_12", "conv_1_nchwc"]
    assert modules.of_operators(names) == ["stem", "stages.0.dw", "head", "stages.0.dw"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["?", "a", "?", "b", "?"], ["", "m.a", "m", "m.b", ""]),
        (["?", "?"], ["", ""]),
        (["a", "?", "a"], ["m.a", "m.a", "m.a"]),
    ],
)
def test_what_a_runtime_adds_lies_in_the_module_that_holds_both_sides(names: list[str], expected: list[str]) -> None:
    assert Modules({"a": "m.a", "b": "m.b"}).of_operators(names) == expected


def test_folding_opens_the_modules_that_take_the_time_and_loses_none_of_it() -> None:
    times = {"a.x": 50.0, "a.y.p": 20.0, "a.y.q": 20.0, "b.u": 5.0, "b.v": 4.0, "": 1.0}
    assert folded(times, 3) == {"a": 90.0, "b": 9.0, "": 1.0}
    assert folded(times, 4) == {"a.x": 50.0, "a.y": 40.0, "b": 9.0, "": 1.0}
    assert folded(times, 5) == {"a.x": 50.0, "a.y.p": 20.0, "a.y.q": 20.0, "b": 9.0, "": 1.0}
    assert sum(folded(times, 1).values()) == sum(times.values())
