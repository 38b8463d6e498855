"""Names that survive, and where in the source they come from."""

from graphs.onnx.modules import Modules, between, folded, modules_of

_PARAMETERS = ("stem.weight", "stages.0.dw.weight", "stages.0.pw.bias", "stages.1.dw.weight")


def _nodes() -> list[tuple[str, list[str], list[str]]]:
    return [
        ("node_mul", ["image", "two"], ["mul"]),
        ("node_conv", ["mul", "stem.weight"], ["conv"]),
        ("node_conv_1", ["conv", "stages.0.dw.weight"], ["conv_1"]),
        ("node_norm", ["conv_1", "ones"], ["norm"]),
        ("node_gemm", ["norm", "val_7.transposed.folded", "stages.0.pw.bias.folded"], ["gemm"]),
        ("node_add", ["conv", "gemm"], ["add"]),
        ("node_conv_2", ["add", "stages.1.dw.weight"], ["conv_2"]),
    ]


_WEIGHTS = {"two", "ones", *_PARAMETERS, "val_7.transposed.folded", "stages.0.pw.bias.folded"}


def test_a_weight_says_whose_its_operator_is_and_the_others_lie_between_those() -> None:
    modules = modules_of(_nodes(), _WEIGHTS, _PARAMETERS).by_name
    assert modules["node_conv"] == modules["conv"] == "stem"
    assert modules["gemm"] == "stages.0.pw"
    assert modules["norm"] == "stages.0"
    assert modules["add"] == "stages"
    assert modules["mul"] == ""


def test_without_the_checkpoint_torchs_own_names_for_parameters_serve() -> None:
    assert modules_of(_nodes(), _WEIGHTS, None).by_name == modules_of(_nodes(), _WEIGHTS, _PARAMETERS).by_name


def test_a_runtime_may_add_to_a_name_and_a_number_is_not_cut() -> None:
    modules = Modules({"conv": "stem", "conv_1": "stages.0.dw", "conv_12": "head"})
    names = ["conv_nchwc", "conv_1.rows0_output", "conv_12", "ReorderOutput_token_4", "conv_1_nchwc"]
    assert modules.of_operators(names) == ["stem", "stages.0.dw", "head", "", "stages.0.dw"]


def test_scopes_in_the_names_of_nodes_are_read() -> None:
    modules = modules_of([("/layer1/layer1.0/relu/Relu", ["x"], ["y"]), ("/fc/Gemm", ["y"], ["z"])], (), None)
    assert (modules.by_name["y"], modules.by_name["z"]) == ("layer1.0.relu", "fc")


def test_what_lies_before_the_first_and_after_the_last_belongs_to_the_whole_model() -> None:
    assert between([None, "a.b", None, "a.c", None]) == ["", "a.b", "a", "a.c", ""]
    assert between([None, None]) == ["", ""]


def test_folding_opens_the_modules_that_take_the_time_and_loses_none_of_it() -> None:
    times = {"a.x": 50.0, "a.y.p": 20.0, "a.y.q": 20.0, "b.u": 5.0, "b.v": 4.0, "": 1.0}
    assert folded(times, 3) == {"a": 90.0, "b": 9.0, "": 1.0}
    assert folded(times, 4) == {"a.x": 50.0, "a.y": 40.0, "b": 9.0, "": 1.0}
    assert folded(times, 5) == {"a.x": 50.0, "a.y.p": 20.0, "a.y.q": 20.0, "b": 9.0, "": 1.0}
    assert sum(folded(times, 1).values()) == sum(times.values())
