"""A file that LiteRT does not survive is an error; one that it survives is found out once."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from backends import crash_check
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact
from backends.registry import open_session
from backends.sandbox import SandboxProcess
from tests.deadly import with_deadly_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user that has run nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(crash_check, "_seen", set())
    return tmp_path / "cache" / "seal-toolkit" / "crash_checked.txt"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files for which a process was started."""
    found: list[str] = []

    class Counted(SandboxProcess):
        def call(self, function: object, *arguments: object, **named: object) -> object:
            found.append(Path(str(arguments[0])).name)
            return super().call(function, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(crash_check, "SandboxProcess", Counted)
    return found


def _open(bundle: Bundle, precision: str, backend: str = "tflite", format: str = "tflite") -> None:
    open_session(bundle, bundle.find("detector", format, precision), backend, 1).close()


def test_a_file_that_ends_the_process_is_one_error_each_time(tiny: Bundle, cache: Path, started: list[str]) -> None:
    bundle, _ = with_deadly_file(tiny, "fp32")
    for _ in range(2):
        with pytest.raises(InvalidArtifact) as error:
            _open(bundle, "fp32")
        assert str(error.value).startswith(f"{bundle.folder / 'detector.fp32.tflite'}: ai-edge-litert ")
        assert "ran it once was killed by SIGABRT; convert it again, or use another" in str(error.value)
    assert not cache.exists()
    assert started == ["detector.fp32.tflite"] * 2


def test_what_lives_is_known_to_later_processes_of_the_user(
    tiny: Bundle, cache: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("fp32", "int8", "fp32"):
        _open(tiny, precision)
    assert started == ["detector.fp32.tflite", "detector.int8.tflite"]
    assert [line.split()[1] for line in cache.read_text().splitlines()] == [
        tiny.find("detector", "tflite", precision).sha256 for precision in ("fp32", "int8")
    ]
    monkeypatch.setattr(crash_check, "_seen", set())  # another process
    _open(tiny, "int8")
    assert len(started) == 2


def test_another_release_of_the_runtime_asks_again(
    tiny: Bundle, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _open(tiny, "fp32")
    monkeypatch.setattr(crash_check, "version", lambda package: "99.0")
    _open(tiny, "fp32")
    assert len(started) == 2


def test_a_cache_that_cannot_be_written_or_read_is_no_error(tiny: Bundle, cache: Path, started: list[str]) -> None:
    cache.mkdir(parents=True)  # a folder in its place
    _open(tiny, "fp32")
    _open(tiny, "fp32")
    assert started == ["detector.fp32.tflite"]


def test_a_user_without_a_home_is_no_error(tiny: Bundle, started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/proc/no-such-home")
    _open(tiny, "fp32")
    assert started == ["detector.fp32.tflite"]


def test_a_folder_called_like_one_of_our_packages_is_not_looked_into(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("backends", "toolkit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('another project')")
    monkeypatch.chdir(tmp_path)
    _open(tiny, "fp32")
    with SandboxProcess(tmp_path / "log", 60) as trial:
        assert trial.call(len, [1]) == 1


def test_other_runtimes_are_not_asked(tiny: Bundle, started: list[str]) -> None:
    _open(tiny, "fp32", backend="ort", format="onnx")
    assert started == []


def test_a_file_that_is_refused_in_words_gives_these_words(tiny: Bundle, started: list[str]) -> None:
    artifact = tiny.find("detector", "tflite", "fp32")
    path = tiny.folder / artifact.file
    path.write_bytes(b"no model at all, whatever its hash")
    changed = replace(artifact, sha256=sha256_of(path), bytes=path.stat().st_size)
    refused = r"detector\.fp32\.tflite: expected a TFLite file \(identifier TFL3\), got b'odel'"
    with pytest.raises(InvalidArtifact, match=refused):
        open_session(tiny.with_artifact(changed), changed, "tflite", 1)
    assert started == ["detector.fp32.tflite"]  # the check itself lets a refusal in words pass
    assert crash_check.is_known_safe("ai-edge-litert", changed.sha256)


def test_the_files_that_ship_are_known_on_the_locked_release(started: list[str]) -> None:
    """When this fails, run them on that release, and write backends/crash_checked.txt anew."""
    (release,) = re.findall(r"^ai-edge-litert==(.*)$", (ROOT / "requirements/run.lock").read_text(), re.MULTILINE)
    manifest = json.loads((ROOT / "toolkit/bundles/pocketseal/bundle.json").read_text())
    shipped = [one["sha256"] for one in manifest["artifacts"] if one["format"] == "tflite"]
    assert crash_check.SHIPPED.read_text().splitlines() == [f"ai-edge-litert-{release} {sha256}" for sha256 in shipped]
    bundle = Bundle.open(ROOT / "toolkit/bundles/pocketseal")
    for artifact in bundle.artifacts:
        if artifact.format == "tflite":
            open_session(bundle, artifact, "tflite", 1).close()
    assert started == []
