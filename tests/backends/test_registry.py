"""Names come from entry points and load on first use; duplicates and unknown names are refused."""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backends import plugins
from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, NotAvailable, NotInstalled
from backends.plugins import Registry
from backends.registry import BACKENDS, BackendSpec, backends_for, find_artifact, open_session, run_targets
from backends.session import Session


def _points(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> Registry[object]:
    """A registry of a group in which these entry points are installed, each a name and a target."""
    found = [EntryPoint(name, target, "things") for name, target in points]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)
    return Registry("things", "thing")


def test_importing_the_core_imports_no_runtime() -> None:
    code = (
        "import sys, backends.registry, backends.bundle\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} "
        "& {'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'safetensors', 'PIL'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_listing_the_backends_does_not_import_torch() -> None:
    code = (
        "import sys; from backends.registry import backends_for\n"
        "print(len(backends_for('onnx')), 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, imported = run.stdout.split()
    assert (int(count) >= 1, imported) == (True, "False")


def test_no_two_backends_have_the_same_rank() -> None:
    names = ("ort", "tflite", "torch", "torch.compile", "openvino")
    assert [Registry.load(BACKENDS, name).rank for name in names] == [0, 1, 2, 3, 4]  # installed or not


def test_each_format_has_its_default_backend_first() -> None:
    first = {file_format: backends_for(file_format)[0].name for file_format in ("onnx", "tflite", "torch")}
    assert first == {"onnx": "ort", "tflite": "tflite", "torch": "torch"}
    assert [spec.name for spec in backends_for("torch")] == ["torch", "torch.compile"]
    assert backends_for("no such format") == ()


def test_a_file_is_compared_on_the_backends_that_run_its_precision(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(artifact: Artifact) -> list[str]:
        return [target.name for target in run_targets(artifact) if target.backend != "openvino"]

    assert names(tiny.find("detector", "torch", "fp32")) == ["detector.safetensors"]  # torch.compile is only timed
    other = BackendSpec("other", "Other", ("onnx",), "numpy", Session, precisions=("fp32",))
    monkeypatch.setitem(BACKENDS._added, "other", other)
    onnx = tiny.find("detector", "onnx", "fp32")
    assert names(onnx) == ["detector.onnx", "detector.onnx on other"]
    assert names(replace(onnx, precision="int8")) == ["detector.onnx"]


def _casting(refusal: str | None) -> BackendSpec:
    return BackendSpec("cast", "Cast", ("onnx",), "numpy", Session, casts=("bf16",), refuses=lambda precision: refusal)


def test_a_precision_without_files_runs_the_file_of_its_base(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS._added, "cast", _casting(None))
    onnx = tiny.find("detector", "onnx", "fp32")
    cast = replace(onnx, precision="bf16")
    found = {target.name: target for target in run_targets(onnx) if target.backend == "cast"}
    assert list(found) == ["detector.onnx on cast", "detector.onnx on cast in bf16"]
    assert found["detector.onnx on cast in bf16"].artifact == cast == find_artifact(tiny, "detector", "cast", "bf16")
    assert [target.name for target in run_targets(replace(onnx, precision="int8"))][-1] == "detector.onnx on cast"


def test_a_processor_that_cannot_run_a_precision_is_said_with_what_works(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS._added, "cast", _casting("no such instructions"))
    onnx = tiny.find("detector", "onnx", "fp32")
    assert "detector.onnx on cast in bf16" not in [target.name for target in run_targets(onnx)]
    for attempt in (
        lambda: find_artifact(tiny, "detector", "cast", "bf16"),
        lambda: open_session(tiny, replace(onnx, precision="bf16"), "cast", 1),
    ):
        with pytest.raises(
            NotAvailable, match="^backend 'cast' does not run bf16 here: no such instructions; fp32 work"
        ):
            attempt()


def test_a_backend_that_does_not_round_refuses_a_precision_without_files(tiny: Bundle) -> None:
    says = (
        "backend 'ort' does not run bf16: bf16 has no files of its own: `toolkit run --backend openvino -p bf16` runs"
    )
    with pytest.raises(NotAvailable, match=says):
        find_artifact(tiny, "detector", "ort", "bf16")
    with pytest.raises(NotAvailable, match=says):
        open_session(tiny, replace(tiny.find("detector", "onnx", "fp32"), precision="bf16"), "ort", 1)


def test_the_names_of_backends_are_listed_without_their_packages() -> None:
    assert {"ort", "tflite", "torch", "torch.compile", "openvino"} <= set(BACKENDS.names)


def test_two_packages_cannot_bring_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    things = _points(monkeypatch, ("a", "math:sin"), ("a", "math:cos"))
    with pytest.raises(NotAvailable, match="thing 'a' is registered twice, as math:sin and as math:cos; uninstall"):
        things.load("a")


def test_the_same_entry_point_found_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    things = _points(monkeypatch, ("b", "math:cos"), ("a", "math:sin"), ("a", "math:sin"))
    assert things.names == ("a", "b")
    assert things.load("a")(0.0) == 0.0  # type: ignore[operator]


def test_a_thing_that_was_added_is_loaded_and_its_name_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    things = _points(monkeypatch, ("a", "math:sin"))
    things.add("b", 7)
    assert (things.names, things.load("b")) == (("a", "b"), 7)
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=f"thing '{name}' is registered already"):
            things.add(name, 8)


def test_a_miss_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAvailable, match="no thing named 'c'; there is a, b"):
        _points(monkeypatch, ("a", "math:sin"), ("b", "math:cos")).load("c")


def test_a_missing_package_is_named_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    things = _points(monkeypatch, ("a", "no_such_module.here:x"), ("b", "math:cos"))
    with pytest.raises(NotInstalled, match=r"No module named 'no_such_module'.*pip install no-such-module"):
        things.load("a")
    assert [thing(0.0) for thing in things.installed()] == [1.0]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("raise RuntimeError('numpy 1 was\\nexpected')", r"RuntimeError: numpy 1 was expected; install it again$"),
        (
            "raise ImportError('lib.so: no such file', name='broken_runtime')",
            r"ImportError: lib.so: no such file; install it again with `pip install --force-reinstall broken-runtime`",
        ),
        ("import onnx.no_such_part", r"No module named 'onnx.no_such_part'; .*--force-reinstall onnx`"),
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_no_traceback(
    lines: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_module_{len(lines)}"
    (tmp_path / f"{name}.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    things = _points(monkeypatch, ("a", f"{name}:x"), ("b", "math:cos"))
    with pytest.raises(NotAvailable, match=f"thing 'a' cannot be loaded: .*{reason}") as raised:
        things.load("a")
    assert not isinstance(raised.value, NotInstalled)
    assert [thing(0.0) for thing in things.installed()] == [1.0]  # type: ignore[operator]


def test_a_backend_whose_runtime_is_missing_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BackendSpec("late", "Late", ("onnx",), "late-runtime", Session, requires=("no_such_module",))
    monkeypatch.setitem(BACKENDS._added, "late", spec)
    with pytest.raises(NotInstalled, match=r"'late' .*no module named 'no_such_module'.*pip install no-such"):
        BACKENDS.load("late")


def test_a_backend_needs_a_name_and_a_format() -> None:
    for name, formats in (("", ("onnx",)), ("some", ())):
        with pytest.raises(ValueError, match="expected a name and at least one file format"):
            BackendSpec(name, "Some", formats, "some", Session)


def test_a_file_of_another_format_is_refused_in_words(tiny: Bundle) -> None:
    with pytest.raises(
        InvalidArtifact, match=r"detector\.onnx: backend 'tflite' opens tflite files, and this is a onnx file"
    ):
        open_session(tiny, tiny.find("detector", "onnx", "fp32"), "tflite", 1)
