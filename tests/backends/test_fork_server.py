"""Forks of a server behave as fresh processes do: their own group, files and environment, and an end of their own."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends import fork_server
from backends.fork_server import ForkedProcess, fork
from backends.sandbox import deadline, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on other systems each child is a fresh process")

_MODULE = """
import os, sys
print(os.environ.get("A_VARIABLE"), os.getcwd(), os.getpgrp() == os.getpid(), sys.argv[1:], flush=True)
print("to the log", file=sys.stderr, flush=True)
if sys.argv[1:] == ["raise"]:
    raise ValueError("no such thing")
if sys.argv[1:] == ["exit"]:
    sys.exit(3)
sys.stdin.read()
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    (tmp_path / "child_for_a_test.py").write_text(_MODULE)
    return tmp_path


def _fork(modules: Path, *arguments: str, preload: tuple[str, ...] = ("json",)) -> ForkedProcess:
    env = {**os.environ, "PYTHONPATH": str(modules), "A_VARIABLE": "set"}
    with (modules / "log").open("a") as log:
        return fork(sys.executable, preload, "child_for_a_test", arguments, log, env, modules)


def test_it_has_its_own_environment_folder_group_and_log(modules: Path) -> None:
    with _fork(modules, "one", "two") as process:
        assert process.stdout.readline().decode() == f"set {modules} True ['one', 'two']\n"
        assert os.getpgid(process.pid) == process.pid
    assert process.returncode == 0
    assert (modules / "log").read_text() == "to the log\n"


def test_it_ends_as_a_fresh_process_would(modules: Path) -> None:
    assert _code(_fork(modules, "exit")) == 3
    assert _code(_fork(modules, "raise")) == 1
    assert "ValueError: no such thing" in (modules / "log").read_text()
    with _fork(modules) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def _code(process: ForkedProcess) -> int | None:
    with process:
        process.stdout.read()
    return process.returncode


def test_several_run_at_once(modules: Path) -> None:
    with _fork(modules, "first") as first, _fork(modules, "second") as second:
        assert b"second" in second.stdout.readline()
        assert b"first" in first.stdout.readline()
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_server_that_died_is_replaced(modules: Path) -> None:
    assert _code(_fork(modules, "exit")) == 3
    (server,) = (server for key, server in fork_server._servers.items() if str(modules) in key)
    server._process.kill()
    server._process.wait()
    assert _code(_fork(modules, "exit")) == 3


def test_a_server_that_ends_at_once_leaves_no_pipe_open(modules: Path) -> None:
    """A pipe that was left open would be a ResourceWarning, which fails a test."""
    program = modules / "no-python"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    with (modules / "log").open("a") as log:
        server = fork_server._Server(str(program), (), log, os.environ)
        server._process.wait()
        with pytest.raises(OSError, match="Broken pipe"):
            server.start({}, log)
        server.close()
    gc.collect()


def test_a_module_that_cannot_be_preloaded_fails_in_the_child(modules: Path) -> None:
    assert _code(_fork(modules, "exit", preload=("not_a_module",))) == 3


def test_imports_of_a_server_that_hang_do_not_outlive_the_deadline(modules: Path) -> None:
    (modules / "hangs_on_import.py").write_text("import time; time.sleep(60)")
    env = {**os.environ, "PYTHONPATH": str(modules)}
    began = time.monotonic()
    with (modules / "log").open("a") as log:
        process = start(sys.executable, "child_for_a_test", [], log, env, modules, 1 << 30, ("hangs_on_import",))
        with process, deadline(process, 0.3) as late:
            assert process.stdout is not None
            assert process.stdout.read() == b""
    assert late.is_set()
    assert process.returncode
    assert time.monotonic() - began < 20


def test_a_server_that_still_imports_is_not_waited_for(modules: Path) -> None:
    (modules / "hangs_too.py").write_text("import time; time.sleep(60)")
    env = {**os.environ, "PYTHONPATH": str(modules)}
    with (modules / "log").open("a") as log:
        server = fork_server._Server(sys.executable, ("hangs_too",), log, env)
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 20


def test_nothing_is_left_once_the_caller_is_gone(modules: Path) -> None:
    code = f"""
import os, sys
from backends.fork_server import fork
env = {{**os.environ, "PYTHONPATH": {str(modules)!r}}}
process = fork(sys.executable, ["json"], "child_for_a_test", [], sys.stderr, env)
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{pid} still runs")
