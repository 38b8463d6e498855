"""A conversion that was interrupted leaves the bundle as it was, and goes on where it stopped."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.atomic import replacing
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidInput, NotAvailable
from graphs.tflite.writer import copy_weights
from toolkit.convert import direct, slices
from toolkit.convert.outcome import Made
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.resume import Steps, kept_steps
from toolkit.parity.agreement import conversion_rules

PRECISIONS = ("fp32", "int8")
LIMIT = 5400  # bytes: the first convolution, then the second and the head
Lines = list[str]


@pytest.fixture
def graph(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The tiny bundle with nothing but its graphs, where each slice has a run of the converter to itself."""
    monkeypatch.setattr(slices, "DEFAULT_LIMIT_BYTES", 1)
    for artifact in tiny.artifacts:
        if artifact.format == "tflite":
            (tiny.folder / artifact.file).unlink()
    bundle = Bundle(tiny.folder, tiny.model, tiny.weights, tuple(a for a in tiny.artifacts if a.format != "tflite"))
    bundle.write()
    return bundle


def _stopping_at(lines: Lines, text: str | None) -> Callable[[str], None]:
    def progress(line: str) -> None:
        lines.append(line)
        if text is not None and line.startswith(text):
            raise KeyboardInterrupt

    return progress


def _convert(bundle: Bundle, stop: str | None = None) -> Lines:
    lines: Lines = []
    progress = _stopping_at(lines, stop)
    if stop is None:
        convert_bundle(
            bundle.folder, conversion_rules, PRECISIONS, progress=progress, slice_limit_bytes=LIMIT, strict=True
        )
    else:
        with pytest.raises(KeyboardInterrupt):
            convert_bundle(
                bundle.folder, conversion_rules, PRECISIONS, progress=progress, slice_limit_bytes=LIMIT, strict=True
            )
    return lines


def _state(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file() and path.suffix != ".log"}


def test_it_goes_on_after_the_last_slice_that_was_finished(graph: Bundle, tmp_path: Path) -> None:
    other = Bundle.open(shutil.copytree(graph.folder, tmp_path / "other"))
    before = _state(graph.folder)
    first = _convert(graph, stop="quantizing slice 2 of 2")
    assert "lowering slice 1 of 2 to TFLite (onnx2tf)" in first
    assert _state(graph.folder) == before
    second = _convert(graph, stop="stitching 2 slices (int8)")
    assert "going on after slice 1 of 2" in second
    assert not [line for line in second if line.startswith(("lowering slice 1", "cutting slice 1"))]
    assert _state(graph.folder) == before
    third = _convert(graph)
    assert "going on after slice 2 of 2" in third
    assert not [line for line in third if line.startswith(("lowering", "quantizing slice", "stitching 2 slices (fp32"))]
    assert not [path for path in graph.folder.iterdir() if path.is_dir()]

    _convert(other)
    assert _state(other.folder) == _state(graph.folder)


def test_a_full_disk_while_stitching_leaves_the_bundle_as_it_was(
    graph: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Bundle.open(shutil.copytree(graph.folder, tmp_path / "other"))
    before = _state(graph.folder)
    copied: list[Path] = []

    def only_one(weights: Any, path: Path, copied_file: Callable[[Path], None]) -> None:
        def full_after(file: Path) -> None:
            copied_file(file)
            copied.append(file)
            raise OSError(errno.ENOSPC, "No space left on device")

        copy_weights(weights, path, full_after)

    with monkeypatch.context() as patch:
        patch.setattr(direct, "copy_weights", lambda weights, path, copied: only_one(weights, path, copied))
        for _ in range(2):  # of two slices
            with pytest.raises(NotAvailable, match=r"no room on the disk \(No space left on device\)"):
                convert_bundle(graph.folder, conversion_rules, PRECISIONS, slice_limit_bytes=LIMIT, strict=True)
            assert _state(graph.folder) == before
    assert [file.name for file in copied] == ["slice-0.fp32.tflite", "slice-1.fp32.tflite"]
    lines = _convert(graph)
    assert not [line for line in lines if line.startswith(("cutting", "lowering", "quantizing slice"))]
    _convert(other)
    assert _state(other.folder) == _state(graph.folder)


def _interrupt(folder: Path, inputs: dict[str, Any], work: Callable[[Steps], object]) -> None:
    with kept_steps(folder, inputs) as steps:
        work(steps)
        raise KeyboardInterrupt


def test_steps_of_other_inputs_are_not_taken_up(tmp_path: Path) -> None:
    found = []
    with pytest.raises(KeyboardInterrupt):
        _interrupt(tmp_path, {"limit": 1}, lambda steps: steps.finish("one", (), {"layout": "NHWC"}))
    with pytest.raises(KeyboardInterrupt):
        _interrupt(tmp_path, {"limit": 1}, lambda steps: found.append(steps.finished("one")))
    with kept_steps(tmp_path, {"limit": 2}) as steps:
        found.append(steps.finished("one"))
    assert found == [{"layout": "NHWC"}, None]
    assert list(tmp_path.iterdir()) == []


def test_the_steps_of_another_graph_stay(tmp_path: Path) -> None:
    (tmp_path / ".convert-killed").mkdir()  # of no graph
    with kept_steps(tmp_path, {"limit": 1}, "encode_image") as steps:
        steps.finish("one", (), {})
        steps.unfinished = True
    with kept_steps(tmp_path, {"limit": 1}, "decode_text"):
        assert len(list(tmp_path.iterdir())) == 2
    with kept_steps(tmp_path, {"limit": 1}, "encode_image") as steps:
        assert steps.finished("one") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_step_whose_file_changed_counts_as_not_finished(tmp_path: Path) -> None:
    with kept_steps(tmp_path, {}) as steps:
        file = steps.folder / "slice"
        file.write_bytes(b"1234")
        steps.finish("one", (file,), {})
        assert steps.finished("one") == {}
        file.write_bytes(b"123")
        assert steps.finished("one") is None


def test_an_early_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupt(tmp_path, {}, lambda steps: (steps.folder / "slice").write_bytes(b"1234"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_was_writing_goes_with_the_next_one(tmp_path: Path) -> None:
    with replacing(tmp_path / "bundle.json") as half:
        left = shutil.copy(half, half.with_name(".bundle.json.killed.part"))
    with kept_steps(tmp_path, {}):
        assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.json"]


def test_two_conversions_of_one_bundle_do_not_meet(tmp_path: Path) -> None:
    with (
        kept_steps(tmp_path, {}),
        pytest.raises(InvalidInput, match="another conversion works on this bundle"),
        kept_steps(tmp_path, {}),
    ):
        pass


def test_publishing_that_is_killed_leaves_a_whole_bundle(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.convert.pipeline import _publish

    replaced = tiny.find("detector", "tflite", "int8")
    new = tiny.folder / "new.tflite"
    shutil.copy(tiny.folder / "detector.fp32.tflite", new)
    monkeypatch.setattr(Path, "replace", _dying_at(new, Path.replace))
    with pytest.raises(KeyboardInterrupt):
        _publish(tiny, [Made(replaced, (new,))])
    left = Bundle.open(tiny.folder)
    assert {a.file for a in tiny.artifacts} - {a.file for a in left.artifacts} == {replaced.file}
    for artifact in left.artifacts:
        left.verify(artifact)


def _dying_at(path: Path, replace: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    def move(self: Path, target: Path) -> Path:
        if self == path:
            raise KeyboardInterrupt
        return replace(self, target)

    return move
