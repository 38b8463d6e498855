"""Broken parts are found by `toolkit doctor`, each as one line of advice, and never as a traceback."""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backends.bundle import Bundle
from backends.errors import NotAvailable, NotInstalled
from backends.machine import Machine
from backends.sandbox import SandboxDied, SandboxLate, SandboxProcess
from toolkit import environments
from toolkit.doctor import diagnosis, runtimes
from toolkit.doctor.diagnosis import Needs, check_converter, diagnose, import_extra
from toolkit.doctor.runtimes import BROKEN, MISSING, WORKS, Check, Trial, TriedBackend, attempt, check_backends

MACHINE = Machine("2026-01-02", "Linux x86_64", "3.12.1", 2, {}, "A processor", ["avx2"], 16.0, 0.5)
_BACKEND = """
from backends.errors import NotAvailable
from backends.ort import OrtSession
from backends.registry import BackendSpec

class Wrong(OrtSession):
    def _run(self, feeds):
        if self.artifact.precision == "fp16":
            raise NotAvailable("this processor has no half precision")
        if self.artifact.precision == "int8":
            raise KeyError("int8")
        return {name: 3 - value for name, value in super()._run(feeds).items()}

WRONG = BackendSpec("wrong", "Wrong", ("onnx",), "no-such-distribution", Wrong, rank=50)
PEER = BackendSpec("peer", "Peer", ("onnx",), "onnxruntime", Wrong, rank=60, compared=False)
"""
_FAULTS = {
    "absent": "import no_such_runtime",
    "raises": "raise RuntimeError('built for\\nanother numpy')",
    "dies": "import os; os.abort()",
    "hangs": "import time; time.sleep(60)",
}


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends of a package that each child process finds, most of them broken, beside ONNX Runtime."""
    (tmp_path / "wrong_backend.py").write_text(_BACKEND)
    points = {"wrong": "wrong_backend:WRONG", "peer": "wrong_backend:PEER"}
    for name, lines in _FAULTS.items():
        (tmp_path / f"{name}_backend.py").write_text(lines)
        points[name] = f"{name}_backend:BACKEND"
    about = tmp_path / "faulty-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    listed = "\n".join(f"{name} = {place}" for name, place in points.items())
    (about / "entry_points.txt").write_text(f"[seal_toolkit.backends]\n{listed}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runtimes, "BACKENDS", SimpleNamespace(names=(*points, "ort")))


@pytest.mark.usefixtures("faulty")
def test_each_broken_runtime_is_one_line_and_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(name for name in runtimes.BACKENDS.names if name != "hangs")
    monkeypatch.setattr(runtimes, "BACKENDS", SimpleNamespace(names=names))
    with SandboxProcess(tmp_path / "log", 60.0) as sandbox:
        checks, trials = check_backends(sandbox, lambda step: None)
    found = {check.part.removeprefix("runtime "): check for check in checks}
    states = {name: check.state for name, check in found.items()}
    assert states == {
        "ort": WORKS, "peer": WORKS, "absent": MISSING, "raises": BROKEN, "dies": BROKEN, "wrong": BROKEN,
    }  # fmt: skip
    assert not any("\n" in check.detail + check.advice for check in checks)
    assert found["absent"].advice.endswith("install it with `pip install no-such-runtime`")
    assert "RuntimeError: built for another numpy; install it again" in found["raises"].advice
    assert found["dies"].detail == "its process was killed by SIGABRT"
    assert "only timed by `toolkit bench --peers`" in found["peer"].detail
    # The last backend gives 3 less each output, refuses one precision, and fails in another.
    wrong = {trial.precision: trial for trial in trials if trial.backend == "wrong"}
    assert {name: (trial.state, trial.median_ms) for name, trial in wrong.items()} == {
        "fp32": (BROKEN, None), "fp16": (MISSING, None), "int8": (BROKEN, None), "int8-static": (BROKEN, None),
    }  # fmt: skip
    assert wrong["fp16"].why == "this processor has no half precision"
    assert "differ from float32 by" in wrong["fp32"].why
    ours = [trial for trial in trials if trial.backend == "ort"]
    assert {trial.precision for trial in ours} == {"fp32", "fp16", "int8", "int8-static"}
    assert all(trial.state == WORKS and trial.median_ms is not None and trial.median_ms > 0 for trial in ours)


@pytest.mark.usefixtures("faulty")
def test_a_runtime_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "BACKENDS", SimpleNamespace(names=("hangs",)))
    with SandboxProcess(tmp_path / "log", 1.5) as sandbox:
        checks, _ = check_backends(sandbox, lambda step: None)
    assert [(check.part, check.state, check.detail) for check in checks[:1]] == [
        ("runtime hangs", BROKEN, "its process took longer than 1.5 s")
    ]


def test_files_that_cannot_be_timed_in_time_are_not_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "BACKENDS", SimpleNamespace(names=("ort",)))
    with SandboxProcess(tmp_path / "log", 60.0) as sandbox:
        whole = sandbox.call

        def call(function: Callable[..., object], *arguments: object) -> object:
            if function is runtimes.time_targets:
                raise SandboxLate("took longer than 60 s")
            return whole(function, *arguments)

        monkeypatch.setattr(sandbox, "call", call)
        checks, trials = check_backends(sandbox, lambda step: None)
    assert [(check.part, check.state) for check in checks] == [("runtime ort", WORKS), ("timing", MISSING)]
    assert {(trial.state, trial.median_ms) for trial in trials} == {(WORKS, None)}


def test_without_any_runtime_run_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "BACKENDS", SimpleNamespace(names=()))
    with SandboxProcess(tmp_path / "log", 15.0) as sandbox:
        checks, trials = check_backends(sandbox, lambda step: None)
    assert [(check.part, check.state) for check in checks] == [("toolkit run", BROKEN)]
    assert trials == ()


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (NotInstalled("not\nhere"), Check("part", MISSING, "not installed", "not here")),
        (NotAvailable("broken"), Check("part", BROKEN, "fails while it is loaded", "broken")),
        (
            SandboxDied("was killed by SIGSEGV"),
            Check("part", BROKEN, "its process was killed by SIGSEGV", "install it again, or uninstall it"),
        ),
    ],
)
def test_an_error_of_a_part_becomes_a_check(error: Exception, check: Check) -> None:
    def fail() -> None:
        raise error

    assert attempt("part", fail) == check
    assert attempt("part", lambda: 7) == 7


@pytest.mark.parametrize(("difference", "state"), [(0.9e-4, WORKS), (1.1e-4, BROKEN), (float("nan"), BROKEN)])
def test_outputs_are_held_to_the_limit_that_tells_a_fault_from_rounding(difference: float, state: str) -> None:
    """The limit of fp32 is 1e-4. The runtime of the lowest rank is the reference, wherever it stands."""

    def tried(name: str, rank: int, outputs: float) -> TriedBackend:
        trial = Trial(name, "fp32", "detector.onnx", WORKS)
        return TriedBackend(rank, name, {}, {name: trial}, {name: {"y": np.array([outputs], np.float32)}})

    found = runtimes._judged({"a": tried("a", 5, 1 + difference), "b": tried("b", 0, 1.0)})
    assert (found["a"].state, found["b"].state) == (state, WORKS)


def test_packages_of_an_extra_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("raise OSError('libsndfile.so:\\nnot found')")
    monkeypatch.syspath_prepend(tmp_path)
    extras = {"whole": ("click",), "half": ("click", "half_installed"), "none": ("no_such", "click")}
    monkeypatch.setattr(environments, "PACKAGES", extras)
    assert import_extra("whole").startswith("click 8.")
    with pytest.raises(NotAvailable, match=r"half-installed fails: OSError: libsndfile.so: not found; .*`pip install "):
        import_extra("half")
    with pytest.raises(NotInstalled, match="run `pip install no-such`"):
        import_extra("none")


@pytest.mark.usefixtures("faulty")
def test_a_plug_in_that_fails_is_a_check_and_the_others_are_none(tmp_path: Path) -> None:
    points = tmp_path / "faulty-1.0.dist-info" / "entry_points.txt"
    points.write_text(
        "[seal_toolkit.recipes]\nodd = raises_backend:X\n[seal_toolkit.judges]\nlost = absent_backend:X\n"
    )
    with SandboxProcess(tmp_path / "log", 60.0) as sandbox:
        found = sandbox.call(diagnosis.check_plugins)
    assert [(check.part, check.state) for check in found] == [("precision odd", BROKEN), ("judge lost", MISSING)]
    assert "RuntimeError: built for another numpy" in found[0].advice


def test_broken_onnx_leaves_the_converter_untried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here torch and onnx are replaced by modules that fail."""
    for name in ("onnx", "torch"):
        (tmp_path / f"{name}.py").write_text("raise OSError('libprotobuf.so: not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(environments.CONVERTER_VARIABLE, sys.executable)
    found = _converter(tmp_path)
    assert (found.state, found.detail) == (MISSING, "not tried, because onnx cannot write a graph")
    assert found.advice == "libprotobuf.so: not found"


Converter = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Converter:
    """A function that makes a shell script the converter's Python."""

    def make(lines: str) -> Path:
        path = tmp_path / "python-of-converter"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        monkeypatch.setenv(environments.CONVERTER_VARIABLE, str(path))
        return path

    return make


def _converter(folder: Path, timeout_s: float = 60.0) -> Check:
    with SandboxProcess(folder / "log", 60.0) as sandbox:
        return check_converter(sandbox, folder, timeout_s)


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        ("exec sleep 60", "the converter took longer than 0.5 s and was stopped while starting"),
        ("sleep 60; exit", "the converter took longer than 0.5 s and was stopped while starting"),
        ("echo no such file >&2; exit 3", "the converter failed with exit code [13] while starting: no such file"),
    ],
)
def test_a_converter_that_fails_or_hangs_is_broken(lines: str, detail: str, program: Converter, tmp_path: Path) -> None:
    python = program(lines)
    found = _converter(tmp_path, timeout_s=0.5)
    assert (found.part, found.state) == ("converter", BROKEN)
    assert re.fullmatch(detail, found.detail)
    assert found.advice.endswith(f"convert.lock for {python}")


def test_a_converter_without_its_packages_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.CONVERTER_VARIABLE, sys.executable)  # it has no onnx2tf
    found = _converter(tmp_path)
    assert (found.state, found.detail.rpartition(": ")[2]) == (BROKEN, "No module named 'onnx2tf'")


def test_a_converter_that_was_not_made_or_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environments.CONVERTER_VARIABLE, raising=False)
    monkeypatch.setattr(environments, "default_folder", lambda: tmp_path / "converter")
    found = _converter(tmp_path)
    assert (found.state, found.detail) == (MISSING, "not installed")
    assert found.advice.endswith("run `toolkit setup-converter`")
    (tmp_path / "converter").mkdir()
    found = _converter(tmp_path)
    assert (found.state, found.detail) == (BROKEN, "cannot be used")
    assert "was not finished" in found.advice
    monkeypatch.setenv(environments.CONVERTER_VARIABLE, str(tmp_path / "gone"))
    found = _converter(tmp_path)
    assert found.state == BROKEN
    assert "gone', which is no program" in found.advice


@pytest.mark.parametrize(
    ("free", "disk", "memory"),
    [(9, WORKS, WORKS), (2, WORKS, MISSING), (1, MISSING, MISSING), (0, BROKEN, BROKEN)],
)
def test_disk_and_memory_are_held_against_the_models(free: int, disk: str, memory: str) -> None:
    models = [Needs("small", 1, 10**9, 10**9), Needs("large", 1, 2 * 10**9, 3 * 10**9)]
    found = diagnosis._room(Path("build"), free * 10**9, free * 10**9, models)
    assert [(check.part, check.state) for check in found] == [("disk", disk), ("memory", memory)]
    assert [check.advice != "" for check in found] == [disk != WORKS, memory != WORKS]
    if free == 1:
        assert found[1].advice == "free some memory for large: up to 3.0 GB are needed"
        assert found[0].detail == "1.0 GB free on the disk of build"


def test_without_a_temporary_folder_the_advice_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: MACHINE))
    found = diagnose()
    check = found.checks[0]
    assert (check.part, check.state) == ("temporary folder", BROKEN)
    assert "No space left on device" in check.detail
    assert "TMPDIR" in check.advice
    assert found.exit_code == 1


def test_the_shipped_bundle_is_tried_and_not_one_in_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "build" / runtimes.MODEL / "bundle.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    shipped = Bundle.open(runtimes.find_shipped())
    assert {"fp32", "int8"} <= {artifact.precision for artifact in shipped.artifacts if artifact.role == runtimes.ROLE}
