"""Both runtimes tell where their time goes, and what cannot be profiled is one clear error."""

import os
from pathlib import Path

import pytest

from backends.errors import NotAvailable
from backends.profiling import OperatorTime, by_op_type, profile
from backends.registry import default_backend
from tests.tiny import FOLDER


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("detector.onnx", {"Conv", "Gemm"}),
        ("detector.fp32.tflite", {"Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM"}),
    ],
)
def test_the_operators_of_a_file_and_their_times(file: str, kinds: set[str]) -> None:
    times = profile(FOLDER / file, default_backend(file.rpartition(".")[2]).profile, threads=1, runs=3)
    found = {time.kind for time in times}
    assert all(any(kind.split(" (")[0] in other for other in found) for kind in kinds), found
    assert all(time.median_ms >= 0 for time in times)
    assert sum(time.median_ms for time in times) > 0


def test_a_graph_of_several_inputs_is_profiled() -> None:
    assert profile(FOLDER / "embedder.onnx", default_backend("onnx").profile, threads=1, runs=2)


@pytest.mark.parametrize("name", ["broken.tflite", "broken.onnx"])
def test_what_is_no_model_cannot_be_profiled(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not a model at all")
    with pytest.raises(NotAvailable, match=f"{name}: cannot be profiled: "):
        profile(tmp_path / name, default_backend(name.rpartition(".")[2]).profile, threads=1, runs=2)


def test_a_backend_without_a_profiler_says_so() -> None:
    with pytest.raises(NotAvailable, match=r"detector\.onnx: cannot be profiled: its backend has no profiler"):
        profile(FOLDER / "detector.onnx", None, threads=1, runs=2)


def test_kinds_are_added_up_the_longest_first() -> None:
    times = (OperatorTime("Add", 1.0), OperatorTime("Conv", 5.0), OperatorTime("Add", 2.0))
    first, second = by_op_type(times)
    assert (first.kind, first.count, first.total_ms, first.share) == ("Conv", 1, 5.0, 5 / 8)
    assert (second.kind, second.count, second.total_ms, second.share) == ("Add", 2, 3.0, 3 / 8)
    assert by_op_type(()) == ()


def _dies(path: Path, threads: int, runs: int, precision: str) -> tuple[OperatorTime, ...]:
    os.write(2, b"a first line\nthe last line of the log\n")
    os._exit(3)


def test_the_last_line_of_a_profiler_that_dies_is_shown() -> None:
    with pytest.raises(NotAvailable, match=r"detector\.onnx: cannot be profiled: .*: the last line of the log$"):
        profile(FOLDER / "detector.onnx", _dies, threads=1, runs=2)
