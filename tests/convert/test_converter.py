"""Whatever happens to the converter, its caller gets an error that says what it was doing and what it said last."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.errors import NotAvailable
from toolkit.convert.converter import ConversionFailed, ConverterStopped, run_worker

Fake = Callable[[str], None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a Python program in the converter's place; it sees argv as the worker would."""

    def install(program: str) -> None:
        path = tmp_path / "fake-python"
        path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time, json\n{program}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("TOOLKIT_CONVERTER", str(path))
        monkeypatch.setattr("toolkit.convert.converter.PRELOADED", {})  # it is no Python that can be a fork server

    return install


def _run(tmp_path: Path, timeout_s: float = 60.0) -> list[str]:
    steps: list[str] = []
    run_worker({"task": "lower", "model": "model.onnx"}, tmp_path, tmp_path / "worker.log", timeout_s, steps.append)
    return steps


SAY = 'print(json.dumps({"step": "lowering"}), flush=True)\n'
RESULT = 'open(sys.argv[5], "w").write(json.dumps({"files": {"fp32": "/x"}, "tools": {"t": "1"}}))\n'


def test_steps_and_the_result_come_back(tmp_path: Path, fake: Fake) -> None:
    fake(SAY + 'assert json.load(open(sys.argv[4]))["model"] == "model.onnx"\n' + RESULT)
    assert _run(tmp_path) == ["lowering"]


def test_a_failure_names_the_step_the_last_lines_and_the_log(tmp_path: Path, fake: Fake) -> None:
    fake(SAY + 'sys.stderr.write("first\\nValueError: no such operator\\n"); sys.exit(3)')
    with pytest.raises(ConversionFailed) as error:
        _run(tmp_path)
    text = str(error.value)
    assert "failed with exit code 3 while lowering" in text
    assert "ValueError: no such operator" in text
    assert str(tmp_path / "worker.log") in text
    assert "\n" not in text
    assert "first" in (tmp_path / "worker.log").read_text(encoding="utf-8")


def test_being_killed_is_told_from_failing(tmp_path: Path, fake: Fake) -> None:
    fake(SAY + "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ConversionFailed, match=r"was killed by SIGKILL \(out of memory\?\) while lowering"):
        _run(tmp_path)


def test_memory_is_bounded_and_running_out_of_it_is_explained(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.convert.converter.MEMORY_LIMIT_BYTES", 1 << 30)
    fake(SAY + "time.sleep(1)\nbytearray(2 << 30)")
    with pytest.raises(ConversionFailed, match=r"exit code 1 \(it may use 1 GB: give it smaller slices\) while low"):
        _run(tmp_path)


def test_a_full_disk_is_explained(tmp_path: Path, fake: Fake) -> None:
    fake(
        SAY
        + "import errno\nsys.stderr.write(f'OSError: {os.strerror(errno.ENOSPC)}\\n' + 'and so\\n' * 9)\nsys.exit(1)"
    )
    with pytest.raises(ConversionFailed, match=r"exit code 1 \(no room on the disk: make some, .* while lowering"):
        _run(tmp_path)


def test_it_is_told_when_its_caller_is_gone(tmp_path: Path, fake: Fake) -> None:
    fake(SAY + "import threading\nthreading.Timer(60, lambda: os._exit(1)).start()\nos.read(0, 1)\n" + RESULT)
    code = "import sys; from pathlib import Path; from toolkit.convert import converter\n"
    code += "converter.PRELOADED = {}\n"
    code += "folder = Path(sys.argv[1])\n"
    code += "converter.run_worker({'task': 'lower'}, folder, folder / 'log', 60, lambda step: print(step, flush=True))"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # PIPE
        assert process.stdout.readline() == "lowering\n"
        process.kill()
    for _ in range(300):
        if (tmp_path / "result.json").exists():
            return
        time.sleep(0.1)
    raise AssertionError("it was not told")


def test_death_before_the_first_step(tmp_path: Path, fake: Fake) -> None:
    fake("sys.exit(1)")
    with pytest.raises(ConversionFailed, match="failed with exit code 1 while starting; its last lines: none"):
        _run(tmp_path)


def test_a_program_that_is_no_worker_is_named_by_what_it_prints(tmp_path: Path, fake: Fake) -> None:
    fake("print('hello there', flush=True)\nimport time\ntime.sleep(60)")
    with pytest.raises(ConverterStopped, match="is no Python that runs the worker: it printed 'hello there' while"):
        _run(tmp_path)


def test_an_end_without_a_result_is_a_failure(tmp_path: Path, fake: Fake) -> None:
    (tmp_path / "result.json").write_text("of an earlier run", encoding="utf-8")
    fake(SAY)
    with pytest.raises(ConversionFailed, match="ended without a result while lowering"):
        _run(tmp_path)


def test_one_that_hangs_is_stopped_with_everything_it_started(tmp_path: Path, fake: Fake) -> None:
    pid_file = tmp_path / "child.pid"
    fake(
        SAY + "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    start = time.monotonic()
    with pytest.raises(ConversionFailed, match="took longer than 3 s and was stopped while lowering"):
        _run(tmp_path, timeout_s=3)
    assert time.monotonic() - start < 60
    assert not _is_running(int(pid_file.read_text(encoding="utf-8")))


def _is_running(pid: int) -> bool:
    """Whether a process still runs. One that was killed may stay as a zombie where nothing collects orphans."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text(encoding="utf-8").rsplit(") ", 1)[1].startswith("Z"):
            return False
        time.sleep(0.1)
    return True


def test_the_callers_python_does_not_leak_into_the_converters(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "elsewhere")
    fake(
        'assert "PYTHONSTARTUP" not in os.environ\nassert os.environ["PATH"].startswith(os.path.dirname(__file__))\n'
        'assert os.environ["PYTHONPATH"].endswith("convert")\n' + RESULT
    )
    assert _run(tmp_path) == []


def test_without_a_converter_one_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLKIT_CONVERTER", raising=False)
    monkeypatch.setattr("toolkit.environments.default_folder", lambda: tmp_path / "nothing")
    with pytest.raises(NotAvailable, match="run `toolkit setup-converter`"):
        _run(tmp_path)


def test_a_converter_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "not-a-program"
    path.write_bytes(os.urandom(64))
    path.chmod(0o755)
    monkeypatch.setenv("TOOLKIT_CONVERTER", str(path))
    with pytest.raises(ConversionFailed, match="cannot start the converter"):
        _run(tmp_path)
