"""Outputs kept, and the same files held to them later: what moved is told, and what became another answer fails."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.tensor import Array
from tests.tiny import FOLDER
from toolkit.cli import main
from toolkit.records import making
from toolkit.records.drift import drift_of, records_at
from toolkit.records.making import record_bundle
from toolkit.records.record import Record, in_eight_bits, read_record, write_record

FILES = ("detector.onnx", "detector.int8.tflite", "embedder.onnx")


def toolkit(*arguments: object, columns: int = 80) -> Result:
    runner = CliRunner(env={"COLUMNS": str(columns)})
    return runner.invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Record]:
    """Three files of the tiny bundle, and what they give."""
    folder = tmp_path_factory.mktemp("records") / "tiny"
    shutil.copytree(FOLDER, folder)
    bundle = Bundle.open(folder)
    bundle = replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.file in FILES))
    bundle.write()
    return bundle, record_bundle(bundle, threads=1)


def _drift(bundle: Bundle, record: Record) -> dict[str, Any]:
    drift = drift_of(record, "before.npz", bundle, None, lambda step: None)
    return {file.file: file for file in drift.files} | {"": drift}


def _with_output(record: Record, file: str, change: Callable[[Array], Array]) -> Record:
    """The record, as if it held other values for a file's one output."""

    def changed(kept: Any) -> Any:
        ((name, output),) = kept.outputs.items()
        values = change(output.values.copy())
        return replace(kept, outputs={name: replace(output, values=values, sha256=("0" * 64,) * len(values))})

    return replace(record, files=tuple(changed(kept) if kept.file == file else kept for kept in record.files))


def test_the_same_files_on_the_same_runtimes_give_the_same_bits(recorded: tuple[Bundle, Record]) -> None:
    found = _drift(*recorded)
    assert found[""].passed
    assert found[""].unlike == ()
    assert set(found) == {*FILES, ""}
    for name in FILES:
        (output,) = found[name].outputs.values()
        assert (output.same, output.max_abs, output.relative_l2, output.not_finite) == (1, 0, 0, 0)
    bits = found["detector.onnx"].answers["bits"]
    assert (bits.changed, bits.of % 8) == (0, 0)
    assert bits.of > 0
    assert found["embedder.onnx"].note == "its outputs have no answers"


def test_a_shift_is_measured_and_is_no_failure_while_every_bit_stands(recorded: tuple[Bundle, Record]) -> None:
    bundle, record = recorded
    shift = np.float32(1e-6)
    found = _drift(bundle, _with_output(record, "detector.onnx", lambda values: values + np.sign(values) * shift))
    (output,) = found["detector.onnx"].outputs.values()
    assert output.max_abs == pytest.approx(shift, rel=0.2)
    assert output.same == 0
    assert found[""].passed


def test_a_bit_that_changed_in_a_photograph_fails_that_file_alone(recorded: tuple[Bundle, Record]) -> None:
    bundle, record = recorded
    first = next(i for i, sample in enumerate(record.samples["detector"]) if sample.family == "real")

    def flip(values: Array) -> Array:
        values[first, 3] *= -1
        return values

    found = _drift(bundle, _with_output(record, "detector.int8.tflite", flip))
    assert found["detector.int8.tflite"].answers["bits"].changed == 1
    assert not found["detector.int8.tflite"].passed
    assert found["detector.onnx"].passed
    assert not found[""].passed


def test_a_bit_that_changed_in_noise_alone_is_drift_and_no_answer(recorded: tuple[Bundle, Record]) -> None:
    bundle, record = recorded
    noise = next(i for i, sample in enumerate(record.samples["detector"]) if sample.family == "synthetic")

    def flip(values: Array) -> Array:
        values[noise, 3] *= -1
        return values

    found = _drift(bundle, _with_output(record, "detector.onnx", flip))
    assert found["detector.onnx"].outputs["logits"].max_abs > 0
    assert found[""].passed


def test_what_was_finite_and_is_not_fails(recorded: tuple[Bundle, Record]) -> None:
    bundle, record = recorded

    def spoil(values: Array) -> Array:
        values[0, 0] = np.inf
        return values

    found = _drift(bundle, _with_output(record, "embedder.onnx", spoil))
    assert found["embedder.onnx"].outputs["watermark"].not_finite == 1
    assert not found[""].passed


def test_a_record_of_another_file_is_refused_and_both_hashes_are_said(
    recorded: tuple[Bundle, Record], tmp_path: Path
) -> None:
    bundle, record = recorded
    files = tuple(replace(kept, sha256="f" * 64) if kept.file == "detector.onnx" else kept for kept in record.files)
    path = write_record(replace(record, files=files), tmp_path / "other.npz")
    shown = toolkit("compare", bundle.folder, "--against-record", path)
    assert (shown.exit_code, shown.stdout) == (2, "")
    ours = bundle.find("detector", "onnx", "fp32").sha256
    assert f"expected sha256 {'f' * 16}..., got {ours[:16]}..." in shown.stderr
    assert "detector.onnx" in shown.stderr


def test_samples_that_are_made_otherwise_by_now_are_refused(recorded: tuple[Bundle, Record]) -> None:
    bundle, record = recorded
    samples = {
        role: tuple(replace(one, sha256="0" * 64) if not one.kept else one for one in found)
        for role, found in record.samples.items()
    }
    with pytest.raises(InvalidInput, match="is not what was recorded"):
        _drift(bundle, replace(record, samples=samples))


def test_photographs_are_kept_so_that_nothing_but_the_file_can_move_them(recorded: tuple[Bundle, Record]) -> None:
    bundle, record = recorded
    assert record.samples.keys() == {artifact.role for artifact in bundle.artifacts}
    for role, samples in record.samples.items():
        kept = {sample.name for sample in samples if sample.kept}
        assert kept == {sample.name for sample in samples if sample.family != "synthetic"}
        assert kept == {name for r, name, _ in record.inputs if r == role}


def test_a_record_reads_back_as_it_was_written(recorded: tuple[Bundle, Record], tmp_path: Path) -> None:
    bundle, record = recorded
    again = read_record(write_record(record, tmp_path / "r.npz"))
    assert replace(again, inputs={}, files=()) == replace(record, inputs={}, files=())
    for key, value in record.inputs.items():
        assert value.dtype == again.inputs[key].dtype
        assert np.array_equal(value, again.inputs[key])
    assert _drift(bundle, again)[""].passed


def test_a_folder_holds_a_record_for_each_environment_and_others_are_passed_over(
    recorded: tuple[Bundle, Record], tmp_path: Path
) -> None:
    bundle, record = recorded
    older = replace(
        record,
        files=tuple(replace(kept, in_use=kept.in_use | {"version": "0.1"}) for kept in record.files),
    )
    names = [write_record(one, tmp_path).name for one in (record, older, replace(record, model="another"))]
    assert len(set(names)) == 3
    assert names[1] == "tiny-ai-edge-litert-0.1_onnxruntime-0.1.npz"
    assert sorted(path.name for path, _ in records_at(tmp_path, bundle)) == sorted(names[:2])
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).unlink()
    with pytest.raises(InvalidInput, match="of the model another"):
        records_at(tmp_path, bundle)


def test_the_command_keeps_a_record_and_holds_the_files_to_it(recorded: tuple[Bundle, Record], tmp_path: Path) -> None:
    bundle, record = recorded
    path, out = tmp_path / "r.npz", tmp_path / "drift.json"
    kept = toolkit("compare", bundle.folder, "--record", path)
    assert kept.exit_code == 0
    assert str(path) in kept.stdout
    for columns in (80, 120):
        shown = toolkit("compare", bundle.folder, "--against-record", path, "--json", out, columns=columns)
        assert shown.exit_code == 0
        assert max(map(len, shown.stdout.splitlines())) <= columns
        assert "3 of 3 files give the same bits; no answer changed" in " ".join(shown.stdout.split())
    (drift,) = json.loads(out.read_text())["drifts"]
    assert drift["passed"] is True
    assert {file["file"]: file["before"] == file["now"] for file in drift["files"]} == dict.fromkeys(FILES, True)

    flipped = write_record(_with_output(record, "detector.onnx", lambda values: -values), tmp_path / "flipped.npz")
    shown = toolkit("compare", bundle.folder, "--against-record", flipped)
    assert shown.exit_code == 1
    assert "CHANGED detector.onnx" in shown.stdout


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"not a zip"])
def test_another_file_is_no_record(recorded: tuple[Bundle, Record], tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"record .*r\.npz") as error:
        records_at(path, recorded[0])
    assert "pickle" not in str(error.value)  # which numpy would advise
    with pytest.raises(InvalidInput, match="cannot read"):
        records_at(tmp_path / "gone.npz", recorded[0])


def test_the_two_options_stand_alone(recorded: tuple[Bundle, Record], tmp_path: Path) -> None:
    shown = toolkit("compare", recorded[0].folder, "--record", tmp_path, "--html", tmp_path / "r.html")
    assert (shown.exit_code, shown.stdout) == (2, "")


def test_of_a_large_output_a_seeded_choice_is_kept_and_its_hash_still_tells_of_every_value(
    recorded: tuple[Bundle, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, _ = recorded
    only = replace(bundle, artifacts=(bundle.find("detector", "onnx", "fp32"),))
    monkeypatch.setattr(making, "VALUES", 5)
    record = record_bundle(only, threads=1)
    output = record.files[0].outputs["logits"]
    assert output.values.shape == (len(record.samples["detector"]), 5)
    found = _drift(only, record)
    assert found["detector.onnx"].outputs["logits"].same == 1
    assert found["detector.onnx"].answers == {}
    assert "too large to keep whole" in found["detector.onnx"].note


def test_eight_bits_hold_what_they_held() -> None:
    image = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)
    once = in_eight_bits(image)
    assert np.abs(once - image).max() <= 0.5 / 255 + 1e-7
    assert np.array_equal(in_eight_bits(once), once)
    assert once.dtype == np.float32
    others = np.array([[0.3, 2.0]], np.float32)
    assert in_eight_bits(others) is others
