"""Files that were cut, forged or tangled: one error that says what, and nothing outside their folder is read."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from backends.errors import InvalidArtifact
from graphs.onnx.foreign import external_files, read_foreign, weights_beside

_BYTES = 4 * 16 * 16


def _model(weight: TensorProto, nodes: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in ("x", "y")]
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _weight(sizes: tuple[int, ...] = (16, 16), **place: object) -> TensorProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=sizes)
    if place:
        weight.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            weight.external_data.add(key=key, value=str(value))
    else:
        weight.raw_data = bytes(_BYTES)
    return weight


def _written(folder: Path, model: onnx.ModelProto) -> Path:
    folder = folder / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(_BYTES))
    (folder.parent / "secret").write_bytes(bytes(_BYTES))
    (folder / "link.bin").symlink_to(folder.parent / "secret")
    (folder / "second.bin").hardlink_to(folder.parent / "secret")
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_files_of_a_model_are_listed(tmp_path: Path) -> None:
    path = _written(tmp_path, _model(_weight(location="w.bin", offset=0, length=_BYTES)))
    assert external_files(path) == (path.parent / "w.bin",)
    assert [value.name for value in read_foreign(path, {}).graph.initializers.values()] == ["w"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"location": "../secret", "offset": 0, "length": _BYTES}, "points outside the directory"),
        ({"location": "../../../../etc/passwd"}, "points outside the directory"),
        ({"location": "/etc/passwd"}, "absolute path"),
        ({"location": "link.bin"}, "symbolic link"),
        ({"location": "second.bin", "offset": 0, "length": _BYTES}, "several names (hard links)"),
        ({"location": "gone.bin"}, "gone.bin"),
        ({"location": "w.bin", "length": 1 << 33}, "weight 'w': expected 1024 bytes from byte 0 of w.bin"),
        ({"location": "w.bin", "offset": 1 << 33}, "weight 'w': expected 1024 bytes from byte 8589934592 of w.bin"),
        ({"location": "w.bin", "length": 16}, "which the file says are 16"),
        ({"location": "w.bin", "offset": -8}, "expected a number as its offset, got '-8'"),
        ({"location": "w.bin", "offset": "first"}, "expected a number as its offset, got 'first'"),
    ],
)
def test_a_weight_that_is_not_beside_the_model_is_refused(tmp_path: Path, place: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidArtifact, match="m.onnx") as caught:
        read_foreign(_written(tmp_path, _model(_weight(**place))), {})
    assert said in str(caught.value)


@pytest.mark.parametrize("inside", ["a branch", "a constant"])
def test_a_weight_inside_a_node_is_looked_at_as_well(tmp_path: Path, inside: str) -> None:
    weight = _weight(location="w.bin", length=1 << 33)
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [16, 16])
    if inside == "a branch":
        branch = helper.make_graph([helper.make_node("Identity", ["w"], ["r"])], "b", [], [result], [weight])
        condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
        nodes = [condition, helper.make_node("If", ["c"], ["v"], then_branch=branch, else_branch=branch)]
    else:
        nodes = [helper.make_node("Constant", [], ["v"])]
        nodes[0].attribute.append(helper.make_attribute("value", weight))
    nodes.append(helper.make_node("MatMul", ["x", "v"], ["y"]))
    plain = _weight()
    plain.name = "unused"
    with pytest.raises(InvalidArtifact, match="weight 'w': expected 1024 bytes"):
        external_files(_written(tmp_path, _model(plain, nodes)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (_model(_weight((1 << 20, 1 << 20))), "raw_data size"),
        (_model(_weight((-1, 16))), "Negative dimension"),
        (_model(_weight(), [helper.make_node("Foo", ["x", "w"], ["y"])]), "No Op registered for Foo"),
        (
            _model(
                _weight(),
                [
                    helper.make_node("Add", ["x", "b"], ["a"]),
                    helper.make_node("Add", ["a", "x"], ["b"]),
                    helper.make_node("MatMul", ["b", "w"], ["y"]),
                ],
            ),
            "topologically sorted",
        ),
    ],
)
def test_a_graph_that_is_none_is_refused(tmp_path: Path, model: onnx.ModelProto, said: str) -> None:
    with pytest.raises(InvalidArtifact, match="not a valid ONNX model") as caught:
        read_foreign(_written(tmp_path, model), {})
    assert said in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 100, -100, -1])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, keep: int) -> None:
    path = _written(tmp_path, _model(_weight()))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidArtifact, match="not a valid ONNX model"):
        read_foreign(path, {})


def test_a_file_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08\x3a\xff\xff\xff\xff\x07abc")  # a graph of 2 GB, of which three bytes are there
    with pytest.raises(InvalidArtifact, match="not a valid ONNX model"):
        read_foreign(path, {})


def test_weights_that_are_kept_with_a_linked_model_are_copied_beside_it(tmp_path: Path) -> None:
    path = _written(tmp_path, _model(_weight(location="weights/w.bin", offset=0, length=_BYTES)))
    given = tmp_path / "given"
    (given / "weights").mkdir(parents=True)
    (given / "m.onnx").symlink_to(path)
    (given / "weights" / "w.bin").symlink_to(path.parent / "w.bin")
    with weights_beside(given / "m.onnx") as at:
        assert at.parent not in (given, path.parent)
        assert external_files(at) == (at.parent / "weights" / "w.bin",)
        assert list(read_foreign(at, {}).graph.initializers) == ["w"]
    assert not at.exists()
    (path.parent / "w.bin").write_bytes(bytes(8))  # an error names the given path, not that of the copy
    with (
        pytest.raises(InvalidArtifact, match=f"^{given}/m.onnx: weight 'w': expected 1024 bytes"),
        weights_beside(given / "m.onnx") as at,
    ):
        external_files(at)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link.bin", "gone.bin"])
def test_weights_that_are_not_kept_with_a_linked_model_are_refused(tmp_path: Path, location: str) -> None:
    path = _written(tmp_path, _model(_weight(location=location)))
    (path.parent / "link.bin").unlink()  # so that it is not beside the model either
    given = tmp_path / "given"
    given.mkdir()
    (given / "m.onnx").symlink_to(path)
    (given / "link.bin").symlink_to(tmp_path / "secret")
    with weights_beside(given / "m.onnx") as at, pytest.raises(InvalidArtifact, match="m.onnx"):
        read_foreign(at, {})
