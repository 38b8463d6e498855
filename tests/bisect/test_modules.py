"""A node is named after the torch module it comes from, by what the exporter left of names."""

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from toolkit.bisect.modules import modules_of

_GRAPH = """<ir_version: 10, opset_import: ["": 20]>
g (float[2,2] x) => (float[2,2] y)
<float[2,2] "net.stages.0.up.weight" = {1,2,3,4}, float[2] "net.stages.0.up.bias.folded" = {1,2},
 float[2,2] "val_7.transposed.folded" = {1,2,3,4}, float[2] "net.stages.0.down.bias" = {1,2},
 float[2,2] "onnx::MatMul_3" = {1,2,3,4}> {
  a = Gemm(x, "net.stages.0.up.weight", "net.stages.0.up.bias.folded")
  b = Tanh(a)
  c = Gemm(b, "val_7.transposed.folded", "net.stages.0.down.bias")
  d = Sqrt(c)
  y = MatMul(d, "onnx::MatMul_3")
}"""


def _modules() -> dict[str, str]:
    model = ir.from_proto(onnx.parser.parse_model(_GRAPH))
    list(model.graph)[-1].name = "/head/proj/MatMul"
    return {str(node.outputs[0].name): module for node, module in modules_of(model).items()}


def test_a_weight_names_its_module_whatever_passes_made_of_it() -> None:
    assert _modules()["a"] == "net.stages.0.up"
    assert _modules()["c"] == "net.stages.0.down"


def test_what_lies_between_two_modules_belongs_to_the_innermost_that_holds_both() -> None:
    assert _modules()["b"] == "net.stages.0"


def test_where_nothing_holds_both_it_belongs_to_the_one_before() -> None:
    assert _modules()["d"] == "net.stages.0.down"


def test_a_scoped_name_of_an_older_exporter_says_the_module() -> None:
    assert _modules()["y"] == "head.proj"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("net.conv.weight.folded_bias", "net.conv"),
        ("net.conv.weight.transposed.folded.2", "net.conv"),
        ("w_1.folded_bias", ""),  # of a graph whose weights name no module
    ],
)
def test_what_a_pass_made_of_a_weight_is_in_the_weight_s_module(name: str, module: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[2,2] x) => (float[2,2] y) <float[2,2] "{name}" = {{1,2,3,4}}> {{ y = MatMul(x, "{name}") }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    assert [*modules_of(model).values()] == [module]
