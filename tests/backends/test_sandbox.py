"""What kills a process kills one of its own, and is an error that names it."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.sandbox import SandboxDied, SandboxProcess
from graphs.tflite.graph import Graph
from graphs.tflite.part import find_crashing_op, run_alone
from graphs.tflite.writer import write_graph
from tests.deadly import INT8, greater_of_int8, tensor
from tests.tiny import FOLDER
from toolkit.cli import main
from toolkit.convert import job
from toolkit.convert.binding import bind_tflite


def _refuse(what: str) -> None:
    raise InvalidInput(f"{what}: refused")


def _is_imported(name: str) -> bool:
    return name in sys.modules


_BOTH = pytest.mark.parametrize("preload", [(), ("json",)], ids=["fresh", "forked"])


@_BOTH
def test_a_call_returns_and_raises_as_if_it_ran_here(tmp_path: Path, preload: tuple[str, ...]) -> None:
    with SandboxProcess(tmp_path / "log", 60, preload) as trial:
        assert trial.call(np.add, 1, np.arange(3)).tolist() == [1, 2, 3]
        first = trial.call(os.getpid)
        with pytest.raises(InvalidInput, match="x: refused"):
            trial.call(_refuse, "x")
        assert trial.call(os.getpid) == first != os.getpid()
        trial.call(os.system, "echo printed by a library")
    assert "printed by a library" in (tmp_path / "log").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)  # closing waits for its end


def test_children_with_preloaded_modules_have_them_and_share_nothing_else(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "log", 60) as fresh:
        assert not fresh.call(_is_imported, "this")
    pids = set()
    for _ in range(2):
        with SandboxProcess(tmp_path / "log", 60, ("this",)) as forked:
            assert forked.call(_is_imported, "this")
            assert not forked.call(_is_imported, "antigravity")
            forked.call(_import_antigravity)
            pids.add(forked.call(os.getpid))
    assert len(pids) == 2


def _import_antigravity() -> None:
    sys.modules["antigravity"] = sys


@_BOTH
def test_a_death_is_told_and_the_next_call_gets_a_new_process(tmp_path: Path, preload: tuple[str, ...]) -> None:
    with SandboxProcess(tmp_path / "log", 60, preload) as trial:
        first = trial.call(os.getpid)
        with pytest.raises(SandboxDied, match="was killed by SIGABRT"):
            trial.call(os.abort)
        with pytest.raises(SandboxDied, match="failed with exit code 3"):
            trial.call(os._exit, 3)
        assert trial.call(os.getpid) != first


@_BOTH
def test_a_call_that_does_not_end_is_stopped(tmp_path: Path, preload: tuple[str, ...]) -> None:
    with (
        SandboxProcess(tmp_path / "log", 1, preload) as trial,
        pytest.raises(SandboxDied, match="took longer than 1 s"),
    ):
        trial.call(time.sleep, 600)


def _greater_of_int8(path: Path) -> None:
    x, y = tensor("x", (2, 3), INT8), tensor("y", (2, 3), INT8)
    node = greater_of_int8(x, y)
    (above,) = filter(None, node.outputs)
    write_graph(Graph(b"", {"x": x, "y": y}, {"above": above}, [node]), path)


def test_the_operator_that_kills_is_found_and_others_are_not(tmp_path: Path) -> None:
    _greater_of_int8(tmp_path / "greater.tflite")
    with SandboxProcess(tmp_path / "log", 60) as trial:
        with pytest.raises(SandboxDied, match="SIGABRT"):
            trial.call(run_alone, tmp_path / "greater.tflite")
        assert find_crashing_op(tmp_path / "greater.tflite", trial) == "GREATER of int8 ('above')"
        assert find_crashing_op(FOLDER / "detector.int8.tflite", trial) is None


def _bind_another(path: Path, *arguments: object) -> object:
    """As if the converter had made the file that LiteRT does not survive."""
    _greater_of_int8(path)
    run_alone(path)
    return bind_tflite(path, *arguments)  # type: ignore[arg-type]


def test_a_file_that_kills_its_runtime_is_one_line_and_reaches_no_bundle(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "bind_tflite", _bind_another)
    before = {path.name: path.read_bytes() for path in tiny.folder.iterdir()}
    shown = CliRunner().invoke(main, ["convert", str(tiny.folder), "-p", "fp32"], catch_exceptions=False)
    assert shown.exit_code == 2
    (line,) = (line for line in shown.stderr.splitlines() if "random weights" not in line)
    assert "detector.onnx: no fp32 TFLite file can be made" in line
    assert (
        f"was killed by {signal.Signals.SIGABRT.name}; its GREATER of int8 ('above') crashes when it runs alone" in line
    )
    log = "convert-detector-direct.log"
    assert {path.name: path.read_bytes() for path in tiny.folder.iterdir() if path.name != log} == before
