"""A file read and written again is the same network, its weights inside the flatbuffer or behind it."""

import copy
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from backends.errors import InvalidArtifact, NotAvailable
from backends.flatbuffer import check_tflite
from backends.tensor import Array
from graphs.tflite.graph import ORIGINS_METADATA, Payload, Tensor, TensorOrigin, read_graph
from graphs.tflite.writer import begin_file, copy_weights, write_graph
from tests.tiny import FOLDER
from toolkit.convert import preflight
from toolkit.convert.preflight import check_conversion_space, check_large_files

FILES = tuple(f"detector.{precision}.tflite" for precision in ("fp32", "int8", "int8-static"))


def _run(path: Path) -> dict[str, Array]:
    runner = Interpreter(model_path=str(path), num_threads=1).get_signature_runner("serving_default")
    random = np.random.default_rng(0)
    feeds = {
        name: random.integers(-9, 9, detail["shape"]).astype(detail["dtype"])
        for name, detail in runner.get_input_details().items()
    }
    return dict(runner(**feeds))


def test_weights_behind_the_flatbuffer_are_read_like_those_inside(tmp_path: Path) -> None:
    graph = read_graph(FOLDER / FILES[0])
    write_graph(graph, tmp_path / "behind.tflite", flatbuffer_limit_bytes=0)
    write_graph(read_graph(tmp_path / "behind.tflite"), tmp_path / "inside.tflite")
    write_graph(graph, tmp_path / "expected.tflite")
    assert (tmp_path / "inside.tflite").read_bytes() == (tmp_path / "expected.tflite").read_bytes()


def test_what_tensors_hold_is_written_and_read_again(tmp_path: Path) -> None:
    graph = read_graph(FOLDER / FILES[0])
    tensors = [node.outputs[0] for node in graph.nodes]
    first, last = tensors[0], tensors[-1]
    assert first is not None
    assert last is not None
    gone = Tensor(copy.copy(first.table), None)
    graph.origins = [
        TensorOrigin("a", gone, None),
        TensorOrigin("a", first, (0, 2, 3, 1)),
        TensorOrigin("a", last, None),
        TensorOrigin("b", gone, None),
    ]
    write_graph(graph, tmp_path / "file.tflite")
    (held,) = read_graph(tmp_path / "file.tflite").origins
    # Of a name the first whose tensor is in the file; what no tensor of it holds is not named.
    assert (held.name, held.tensor.table.name, held.order) == ("a", first.table.name, (0, 2, 3, 1))


def test_metadata_that_we_did_not_write_is_refused(tmp_path: Path) -> None:
    graph = read_graph(FOLDER / FILES[0])
    for i, data in enumerate((b"{", b"[1]", b'{"a": ["no such tensor", null]}', b'{"a": 3}')):
        graph.metadata[ORIGINS_METADATA] = Payload(None, 0, len(data), data)
        path = tmp_path / f"{i}.tflite"
        write_graph(graph, path)
        with pytest.raises(InvalidArtifact, match="'onnx_tensors' is damaged or of another program"):
            read_graph(path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("limit_bytes", [1 << 30, 0])
def test_the_same_network_comes_back(file: str, limit_bytes: int, tmp_path: Path) -> None:
    graph = read_graph(FOLDER / file)
    paths = [tmp_path / "first.tflite", tmp_path / "again.tflite"]
    for path in paths:
        write_graph(graph, path, limit_bytes)
        check_tflite(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    expected, got = _run(FOLDER / file), _run(paths[0])
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize("limit_bytes", [1 << 30, 0])
def test_a_file_that_is_begun_can_be_completed_later(limit_bytes: int, tmp_path: Path) -> None:
    graph = read_graph(FOLDER / FILES[0])
    whole, begun = tmp_path / "whole.tflite", tmp_path / "begun.tflite"
    write_graph(graph, whole, limit_bytes)
    weights = begin_file(graph, begun, limit_bytes)
    assert sum(one.size for one in weights) > 0
    assert begun.stat().st_size == whole.stat().st_size
    assert begun.read_bytes() != whole.read_bytes()
    done: list[Path] = []
    for half in (weights[::2], weights[1::2]):
        copy_weights(half, begun, copied=done.append)
    assert done == [FOLDER / FILES[0]] * 2
    assert begun.read_bytes() == whole.read_bytes()


def test_weights_are_aligned_for_the_runtime(tmp_path: Path) -> None:
    write_graph(read_graph(FOLDER / FILES[0]), tmp_path / "a.tflite")
    payloads = [tensor.payload for tensor in read_graph(tmp_path / "a.tflite").tensors() if tensor.payload]
    assert payloads
    assert {payload.offset % 16 for payload in payloads} == {0}


def test_a_file_that_shrinks_while_it_is_copied_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "source.tflite"
    source.write_bytes((FOLDER / FILES[0]).read_bytes())
    graph = read_graph(source)
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(OSError, match="shorter than when it was read"):
        write_graph(graph, tmp_path / "target.tflite")


def test_weights_behind_a_flatbuffer_that_was_cut_short_are_missed(tmp_path: Path) -> None:
    path = tmp_path / "behind.tflite"
    write_graph(read_graph(FOLDER / FILES[0]), path, flatbuffer_limit_bytes=0)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidArtifact, match="a weight ends at byte"):
        check_tflite(path)


def test_this_runtime_loads_files_over_2_gb(tmp_path: Path) -> None:
    check_large_files(tmp_path, 3 << 30, ("fp32", "int8"))
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_cannot_is_named_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("Could not\nopen it")

    monkeypatch.setattr(preflight, "open_interpreter", refuse)
    with pytest.raises(NotAvailable, match=r"cannot load a file over 2 GB, as fp32 would be \(Could not open it\)"):
        check_large_files(tmp_path, 3 << 30, ("fp32", "fp16"))
    check_large_files(tmp_path, 3 << 30, ("fp16", "int8"))  # none of these is so large


def test_a_full_disk_is_said_before_the_work(tmp_path: Path) -> None:
    check_conversion_space(tmp_path, 1000, 1000, ("fp32",))
    with pytest.raises(NotAvailable, match=r"GB of disk are free, and this needs about 1\d{6}\.\d GB"):
        check_conversion_space(tmp_path, 10**15, 10**12, ("fp32", "int8"))


@pytest.mark.parametrize(("stored", "name"), [(b"pixels", "pixels"), (b"pix\xffels", "pix\\xffels"), (None, "")])
def test_a_tensor_s_name_is_text_whatever_bytes_the_file_has(stored: bytes | None, name: str) -> None:
    table = schema.TensorT()
    table.name = stored
    assert Tensor(table, None).name == name
