"""A pass is found where a package names its module, and runs in the place that it states."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from backends.errors import InvalidInput, NotAvailable
from graphs.onnx.readers import made_by
from graphs.passes import registry
from graphs.passes.pipeline import prepare
from graphs.passes.registry import GraphPass, find_pass, graph_pass, in_order, passes

EXPORT = (
    "compute_weights", "fold_batch_norm", "erf_to_gelu", "matmul_to_gemm", "plain_gemm", "reduce_l2_to_sum",
    "shorten_grn", "layer_norm_over_channels", "fold_affine", "simplify", "drop_empty_parts", "keep_rows",
    "state_initial", "split_qkv", "fold_norm", "fold_scale", "join_relative_positions", "split_queries",
    "einsum_to_matmul",
)  # fmt: skip
LOWERING = (
    "integers_to_pairs", "widen_small_integers", "split_depthwise", "states_as_tensors", "split_large_conv",
    "patches_to_depth", "transposed_to_conv", "reflect_by_slices", "write_out_layer_norm", "keep_small_bounds",
    "scale_elu", "write_out_lp_norm", "write_out_log_softmax", "slice_uneven_splits", "write_out_tanh_gelu",
    "write_out_prelu", "part_backward_slices", "smooth_resize_to_products", "nearest_resize_to_gather",
    "reflect_grid", "write_out_cubic_grid", "write_out_einsum",
    "state_boxes_for_search", "fill_found_rows", "pin_io_layout",
)  # fmt: skip


def _unchanged(model: ir.Model) -> tuple[ir.Model, bool]:
    return model, False


def _step(name: str, *after: str) -> GraphPass:
    return GraphPass(name, "export", 0.0, after, _unchanged)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of another package that one entry point more names; what a test puts into it is found."""
    module = ModuleType("another_package")
    monkeypatch.setitem(sys.modules, "another_package", module)
    found = list(registry.entry_points(group=registry.GROUP))
    points = [*found, EntryPoint("another", "another_package", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    passes.cache_clear()
    yield module
    passes.cache_clear()


def test_the_order_is_what_it_was_when_the_passes_were_listed() -> None:
    assert tuple(step.name for step in passes("export")) == EXPORT
    assert tuple(step.name for step in passes("lowering")) == LOWERING


def test_a_pass_of_another_package_runs_right_behind_the_pass_that_it_names(plugin: ModuleType) -> None:
    @graph_pass("export", tolerance=0.0, after="shorten_grn")
    def skip_relu_of_relu(model: ir.Model) -> tuple[ir.Model, bool]:
        found = [(node, inner) for node in model.graph if (inner := made_by(node.inputs[0], "Relu")) is not None]
        for node, inner in found:
            node.replace_input_with(0, inner.inputs[0])
        return model, bool(found)

    plugin.skip_relu_of_relu = skip_relu_of_relu
    names = [step.name for step in passes("export")]
    assert names.index("shorten_grn") < names.index("skip_relu_of_relu") < names.index("simplify")
    assert [name for name in names if name != "skip_relu_of_relu"] == list(EXPORT)
    assert find_pass("skip_relu_of_relu") is skip_relu_of_relu
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) { a = Relu(x)
    y = Relu(a) }"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    model, changed = prepare(model, {"x": np.array([-1, 1], np.float32)})
    assert changed[0] == "skip_relu_of_relu"
    assert len(list(model.graph)) == 1


def test_a_second_pass_of_one_name_is_refused(plugin: ModuleType) -> None:
    plugin.one = _step("fold_norm")
    with pytest.raises(InvalidInput, match="two passes are called 'fold_norm'; one of them is in"):
        passes("export")


def test_a_pass_that_a_module_only_imports_is_the_same_pass(plugin: ModuleType) -> None:
    plugin.theirs = find_pass("fold_norm")
    passes.cache_clear()
    assert tuple(step.name for step in passes("export")) == EXPORT


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInput, match=r"no pass 'gone'; there is compute_weights, .*pin_io_layout"):
        find_pass("gone")
    with pytest.raises(InvalidInput, match=r"pass b: expected to run after a pass of stage export, there is no 'gone'"):
        in_order([_step("a"), _step("b", "a", "gone")])


def test_passes_that_wait_for_each_other_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"passes wait for each other: (a after c|b after a|c after b) after"):
        in_order([_step("a", "c"), _step("b", "a"), _step("c", "b")])


def test_the_order_is_the_same_however_the_passes_were_found() -> None:
    steps = [_step("d", "a"), _step("a"), _step("c", "a"), _step("b"), _step("e", "d", "b")]
    expected = ["a", "b", "c", "d", "e"]
    assert [step.name for step in in_order(steps)] == expected
    assert [step.name for step in in_order(reversed(steps))] == expected


def test_an_installation_without_passes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    with pytest.raises(NotAvailable, match=r"no package with passes is installed \(entry points seal_toolkit.passes\)"):
        registry.installed()


@pytest.mark.parametrize(
    ("name", "stage", "tolerance", "message"),
    [
        ("two words", "export", 0.0, "expected a name"),
        ("fine", "import", 0.0, "expected a stage of export, lowering, got 'import'"),
        ("fine", "export", -1.0, "expected a tolerance of at least 0, got -1.0"),
        ("fine", "export", float("nan"), "expected a tolerance of at least 0, got nan"),
    ],
)
def test_what_no_pass_can_be_is_refused(name: str, stage: str, tolerance: float, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        GraphPass(name, stage, tolerance, (), _unchanged)  # type: ignore[arg-type]  # the stage is wrong on purpose
