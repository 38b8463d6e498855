"""A dense layer with more weights than a limit becomes parts under it, and computes the same."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from backends.tensor import Array
from graphs.onnx.file import save
from graphs.passes.lowering import split_large_gemm

IN, OUT = 16, 50
_NODES = {
    "by output": ("y = Gemm<transB=1>(x, w, b)", (OUT, IN), True),
    "by input": ("y = Gemm(x, w, b)", (IN, OUT), True),
    "without a bias": ("y = Gemm<transB=1>(x, w)", (OUT, IN), False),
    "scaled": ("y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)", (OUT, IN), True),
}


def _model(node: str, shape: tuple[int, int], biased: bool) -> ir.Model:
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[3,{IN}] x) => (float[3,{OUT}] y)'
        f" <float[{shape[0]},{shape[1]}] w, float[{OUT}] b> {{ {node} }}"
    )
    random = np.random.default_rng(0)
    for name, sizes in (("w", shape), *([("b", (OUT,))] if biased else [])):
        value = next(v for n in model.graph for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(random.standard_normal(sizes, dtype=np.float32), name=name)
        model.graph.initializers.add(value)
    return model


def _run(model: ir.Model, path: Path) -> Array:
    save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((3, IN), dtype=np.float32)
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("how", _NODES)
@pytest.mark.parametrize("limit", [1000, 3199])
def test_the_parts_keep_to_the_limit_and_are_the_whole(how: str, limit: int, tmp_path: Path) -> None:
    expected = _run(_model(*_NODES[how]), tmp_path / "before.onnx")
    model, changed = split_large_gemm(_model(*_NODES[how]), limit)
    assert changed
    parts = [node for node in model.graph if node.op_type == "Gemm"]
    sizes = [sum(value.const_value.nbytes for value in node.inputs if value and value.const_value) for node in parts]
    assert len(parts) == -(-sum(sizes) // limit)
    assert max(sizes) <= limit
    assert max(sizes) - min(sizes) <= len(parts) * 4 * (IN + 1)
    assert len(model.graph.initializers) == len(parts) * (1 if how == "without a bias" else 2)
    np.testing.assert_array_equal(_run(model, tmp_path / "after.onnx"), expected)


def test_a_layer_within_the_limit_and_one_with_an_output_over_it_stay() -> None:
    for limit in (3400, 4 * IN):
        model, changed = split_large_gemm(_model(*_NODES["by output"]), limit)
        assert not changed
        assert [node.op_type for node in model.graph] == ["Gemm"]


def test_layers_that_share_a_weight_share_its_parts() -> None:
    model = _model(*_NODES["by output"])
    (first,) = model.graph
    second = ir.node("Gemm", list(first.inputs), {"transB": 1}, name="second")
    second.outputs[0].name, second.outputs[0].shape = "z", first.outputs[0].shape
    second.outputs[0].type = first.outputs[0].type
    model.graph.append(second)
    model.graph.outputs.append(second.outputs[0])
    model, changed = split_large_gemm(model, 1700)
    assert changed
    assert len([node for node in model.graph if node.op_type == "Gemm"]) == 4
    assert len(model.graph.initializers) == 4
