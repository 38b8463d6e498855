"""The folder that all processes of a test run share, and fixtures for several folders of tests."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from backends import registry
from backends.bundle import Bundle
from tests import shared
from tests.tiny import FOLDER


def pytest_configure(config: pytest.Config) -> None:
    """Make the shared folder, and give each of the processes that share the cores one core and one thread.

    A process keeps to its core with all processes that it starts: threads that wait for each other by spinning would
    take the time of the other test processes. The user's cache folder is the run's own. pytest-xdist's workers inherit
    the environment of the process that starts them.
    """
    if hasattr(config, "workerinput"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(config.workerinput["workerid"].removeprefix("gw")) % len(cores)]})
        return
    os.environ[shared.VARIABLE] = tempfile.mkdtemp(prefix="seal-tests-")
    os.environ["XDG_CACHE_HOME"] = str(shared.root() / "cache")
    if config.getoption("numprocesses", None):
        os.environ |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # two threads on one core must not spin


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a test has written into a shared folder."""
    if not hasattr(session.config, "workerinput") and (names := shared.changed()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        raise pytest.UsageError(f"tests have changed shared folders, which are for reading: {', '.join(names)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(shared.root(), ignore_errors=True)


@pytest.fixture(autouse=True)
def _untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not time the files after `toolkit convert`, two seconds each: tests/bench/test_speed.py does; and time those
    of a report as briefly as a benchmark can."""
    monkeypatch.setattr("toolkit.bench.speed.compare_speed", lambda *_: ())
    monkeypatch.setattr("toolkit.report.evidence.TIME_LIMIT_S", 0.0)


@pytest.fixture(autouse=True)
def _without_openvino(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide OpenVINO from tests without the marker `openvino`: the rows that they count are the same on every machine.

    The contract suite, the package of tests/plugins and the commands of the documents see all that is installed.
    """
    if request.node.get_closest_marker("openvino") is None:
        is_installed = registry.is_installed
        monkeypatch.setattr(registry, "is_installed", lambda module: module != "openvino" and is_installed(module))


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    """A copy of the tiny bundle, free to be damaged."""
    folder = tmp_path / "tiny"
    shutil.copytree(FOLDER, folder)
    return Bundle.open(folder)
