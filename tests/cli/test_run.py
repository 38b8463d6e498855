"""`toolkit run`: one JSON object an image, with exactly the contract's keys, and exit codes that can be relied on."""

import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import toolkit
from backends.bundle import Bundle
from tests.cli.constant import constant_bundle
from tests.tiny import BITS, FOLDER
from toolkit.cli import main

IMAGES = Path(__file__).parents[1] / "images"
COFFEE, ROCKET = str(IMAGES / "coffee.jpg"), str(IMAGES / "rocket.jpg")
KEYS = [
    "image", "model", "backend", "precision", "artifact_sha256", "weights", "confidence", "message", "bits",
    "expected", "matching_bits", "p_value", "detected", "timing_ms",
]  # fmt: skip


def run(*arguments: str, bundle: Path = FOLDER) -> Result:
    return CliRunner().invoke(main, ["run", "--bundle", str(bundle), *arguments], catch_exceptions=False)


def rows(shown: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in shown.stdout.splitlines()]


@pytest.mark.parametrize("choice", [("ort", "fp32"), ("tflite", "fp32"), ("tflite", "int8"), ("tflite", "int8-static")])
def test_json_is_one_object_an_image_with_exactly_the_keys_of_the_contract(choice: tuple[str, str]) -> None:
    backend, precision = choice
    shown = run(COFFEE, ROCKET, "--json", "--backend", backend, "-p", precision)
    assert shown.exit_code == 0
    assert [row["image"] for row in rows(shown)] == [COFFEE, ROCKET]
    artifact = Bundle.open(FOLDER).find("detector", {"ort": "onnx"}.get(backend, backend), precision)
    for row in rows(shown):
        assert list(row) == KEYS
        assert (row["model"], row["backend"], row["precision"]) == ("tiny", backend, precision)
        assert row["artifact_sha256"] == artifact.sha256
        assert (row["weights"], row["bits"]) == ("random", BITS)
        assert isinstance(row["confidence"], float)
        assert 0 <= row["confidence"] <= 1
        assert isinstance(row["detected"], bool)
        assert (row["expected"], row["matching_bits"], row["p_value"]) == (None, None, None)
        assert isinstance(row["timing_ms"], dict)
        assert set(row["timing_ms"]) == {"preprocess", "run"}
        assert all(ms > 0 for ms in row["timing_ms"].values())


@pytest.mark.parametrize(
    ("images", "said"),
    [((COFFEE,), "the first run of the network"), ((COFFEE, ROCKET), "The first row has its first run")],
)
def test_a_time_of_a_first_run_is_called_so(images: tuple[str, ...], said: str) -> None:
    shown = " ".join(run(*images).stdout.split())
    assert said in shown
    assert f"`toolkit bench {FOLDER}` times warm runs" in shown


def test_no_line_of_the_runtime_reaches_stderr() -> None:
    # A process of its own: a runtime writes such lines once in a process.
    shipped = str(Path(toolkit.__file__).parent / "bundles" / "pocketseal")
    program = "from toolkit.cli import main; main(prog_name='toolkit')"
    command = [sys.executable, "-c", program, "run", COFFEE, "--bundle", shipped, "--backend", "tflite", "-p", "int8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_message_is_the_one_python_reads() -> None:
    with toolkit.load_detector(FOLDER) as detector:
        expected = detector.detect(COFFEE)
    (row,) = rows(run(COFFEE, "--json"))
    assert (row["message"], row["confidence"]) == (expected.message.hex, expected.confidence)


def test_expect_is_a_test_of_the_message_and_a_miss_is_exit_code_1() -> None:
    (row,) = rows(run(COFFEE, "--json"))
    shown = run(COFFEE, "--json", "--expect", str(row["message"]).upper())
    (judged,) = rows(shown)
    # 8 of 8 bits are one chance in 256: too little for a verdict at one in a million.
    assert (judged["expected"], judged["matching_bits"]) == (row["message"], BITS)
    assert judged["p_value"] == 1 / 256
    assert judged["detected"] is False
    assert shown.exit_code == 1


def test_expect_that_is_there_is_exit_code_0(tmp_path: Path) -> None:
    bundle = constant_bundle(tmp_path)
    (row,) = rows(run(COFFEE, "--json", bundle=bundle))
    shown = run(COFFEE, "--json", "--expect", str(row["message"]), bundle=bundle)
    (judged,) = rows(shown)
    assert judged["matching_bits"] == 32
    assert judged["p_value"] == pytest.approx(2**-32)
    assert judged["detected"] is True
    assert shown.exit_code == 0
    assert "32 of 32" in run(COFFEE, "--expect", str(row["message"]), bundle=bundle).stdout


def test_one_bad_image_costs_none_of_the_others(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.jpg")
    shown = run(COFFEE, gone, ROCKET, "--json", "--expect", "00")
    assert [row["image"] for row in rows(shown)] == [COFFEE, ROCKET]
    assert shown.stderr.splitlines()[-1] == f"error: {gone}: no such image file"
    assert shown.exit_code == 2


def bad_images(folder: Path) -> dict[str, Path]:
    made = {name: folder / name for name in ("gone.png", "empty.png", "text.jpg", "cut.jpg", "folder.png")}
    made["empty.png"].touch()
    made["text.jpg"].write_text("not an image")
    made["cut.jpg"].write_bytes((IMAGES / "coffee.jpg").read_bytes()[:20_000])
    made["folder.png"].mkdir()
    return made


@pytest.mark.parametrize("name", ["gone.png", "empty.png", "text.jpg", "cut.jpg", "folder.png"])
def test_what_is_no_whole_image_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    shown = run(str(bad_images(tmp_path)[name]), "--json")
    assert shown.stdout == ""
    warning, error = shown.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert error.startswith(f"error: {tmp_path / name}: ")
    assert shown.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--expect", "xy"], "message: expected 2 hex digits for 8 bits, got 'xy'"),
        (["--expect", "012"], "message: expected 2 hex digits for 8 bits, got '012'"),
        (["--expect", ""], "message: expected 2 hex digits for 8 bits, got ''"),
        (["--backend", "tensorrt"], "no backend named 'tensorrt'; there is openvino, ort, tflite, torch"),
        (["--precision", "int4"], "no detector onnx int4; there is detector.onnx"),
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--model", "pocketseal"], "--model and --bundle both name a bundle: give one"),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_there_is(arguments: list[str], said: str) -> None:
    shown = run(COFFEE, *arguments)
    assert shown.stdout == ""
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert shown.exit_code == 2


def test_no_bundle_a_broken_manifest_and_a_changed_file_are_refused(tmp_path: Path, tiny: Bundle) -> None:
    for bundle, said in [(tmp_path / "gone", "no bundle here"), (tiny.folder, "does not match its manifest")]:
        model = tiny.folder / "detector.onnx"
        model.write_bytes(model.read_bytes()[:-1] + b"\0")
        shown = run(COFFEE, bundle=bundle)
        assert (shown.exit_code, shown.stdout) == (2, "")
        assert said in shown.stderr
    (tiny.folder / "bundle.json").write_text("{")
    assert "bundle.json" in run(COFFEE, bundle=tiny.folder).stderr


def test_random_weights_are_said_in_words_and_in_json() -> None:
    for arguments in ([], ["--json"]):
        shown = run(COFFEE, *arguments)
        assert shown.stderr == f"warning: {FOLDER} has random weights (seed 0): its results mean nothing\n"
        assert "random" in shown.stdout


def test_a_name_is_looked_for_in_build_and_then_in_the_package(
    tmp_path: Path, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    tiny.folder.rename(tmp_path / "build" / "mine")
    shown = CliRunner().invoke(main, ["run", COFFEE, "--json", "-m", "mine"])
    assert (shown.exit_code, rows(shown)[0]["model"]) == (0, "tiny")

    missed = CliRunner().invoke(main, ["run", COFFEE, "-m", "yours"])
    assert missed.exit_code == 2
    assert missed.stderr.startswith("error: no bundle named 'yours' in build; shipped: ")


def test_a_progress_bar_on_a_terminal_leaves_stdout_to_the_results() -> None:
    ours, theirs = pty.openpty()
    program = str(Path(sys.executable).with_name("toolkit"))
    with subprocess.Popen(
        [program, "run", "--bundle", str(FOLDER), *[COFFEE] * 3, "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        assert process.stdout is not None
        os.close(theirs)
        printed = process.stdout.read().decode()
        shown = read_terminal(ours)
    assert [json.loads(line)["image"] for line in printed.splitlines()] == [COFFEE] * 3
    assert "reading" in shown
    assert process.returncode == 0


def read_terminal(handle: int) -> str:
    chunks = []
    while True:
        try:
            chunk = os.read(handle, 65536)
        except OSError:  # how Linux says that the other side has closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(handle)
    return b"".join(chunks).decode()


def test_a_model_without_a_detection_channel_gives_no_verdict_of_its_own(tmp_path: Path) -> None:
    bundle = constant_bundle(tmp_path)
    (row,) = rows(run(COFFEE, "--json", bundle=bundle))
    assert row["detected"] is None
    assert isinstance(row["confidence"], float)
    assert math.isfinite(row["confidence"])
    assert "needs --expect" in run(COFFEE, bundle=bundle).stdout
