"""Real inputs on the command line, from the import of a model of another project to its benchmark."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import soundfile
from onnx import numpy_helper
from PIL import Image

from backends.bundle import Bundle
from backends.registry import open_session
from tests.foreign_graphs import toolkit
from toolkit.bench.together import timing_feeds
from toolkit.parity.compare import REAL_ALONE

_TEXT = """<ir_version: 10, opset_import: ["": 18]>
g (int64[1,6] ids, int64[1,6] attention_mask, float[40,16] words, float[16,16] weight, int64[1] last, int64[1] ones)
  => (float[1,16] y) {
  embedded = Gather(words, ids)
  hidden = MatMul(embedded, weight)
  active = Relu(hidden)
  wide = Unsqueeze(attention_mask, last)
  kept = Cast<to = 1>(wide)
  weighted = Mul(active, kept)
  summed = ReduceSum<keepdims = 0>(weighted, ones)
  count = ReduceSum<keepdims = 0>(kept, ones)
  y = Div(summed, count)
}"""


def _with_weights(path: Path, text: str, **weights: np.ndarray) -> Path:
    model = onnx.parser.parse_model(text)
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.save(model, path)
    return path


def _text_model(folder: Path) -> Path:
    random = np.random.default_rng(0)
    words, weight = (random.standard_normal(shape).astype(np.float32) for shape in ((40, 16), (16, 16)))
    last, ones = np.array([2]), np.array([1])
    return _with_weights(folder / "text.onnx", _TEXT, words=words, weight=weight, last=last, ones=ones)


def _sentences(path: Path, count: int = 6) -> Path:
    random = np.random.default_rng(1)
    mask = np.arange(6)[None] < random.integers(2, 7, (count, 1))
    np.savez(path, ids=random.integers(0, 40, (count, 6)), attention_mask=mask, labels=np.arange(count))
    return path


def test_a_text_model_is_calibrated_and_judged_on_its_sentences(tmp_path: Path) -> None:
    """Two inputs of integers, a table and a mask: today's synthetic zeros hide every word and divide by 0."""
    folder, sentences = tmp_path / "text", _sentences(tmp_path / "sentences.npz")
    result = toolkit("import", _text_model(tmp_path), "-o", folder, "--inputs", sentences)
    assert result.exit_code == 0, result.output
    assert Bundle.open(folder).model["inputs"] == {
        "path": "../sentences.npz",
        "integers": {"ids": {"below": 40}, "attention_mask": {"mask": True}},
    }
    result = toolkit("convert", folder, "-p", "fp32", "-p", "int8-static")
    assert result.exit_code == 0, result.output
    assert "advisory" not in result.output
    result = toolkit("compare", folder, "--json", tmp_path / "parity.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "parity.json").read_text())
    (role,) = report["roles"]
    assert role["samples"] == {"real": 6, "synthetic": 38}
    assert role["samples_outside_domain"] == 0
    assert report["notes"] == [REAL_ALONE]
    judged = {file["precision"]: file["total"]["outputs"]["y"]["samples"] for file in role["files"]}
    assert judged == {"fp32": 44, "int8-static": 6}
    result = toolkit("bisect", folder, "--candidate", "model.int8-static.tflite", "--json", tmp_path / "layers.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "layers.json").read_text())["samples"] == [f"sentences.npz [{i}]" for i in range(3)]


def test_other_sentences_may_be_given_for_one_command(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    assert toolkit("import", _text_model(tmp_path), "-o", folder).exit_code == 0
    assert "path" not in Bundle.open(folder).model["inputs"]
    result = toolkit("convert", folder, "-p", "fp16", "--runtime", "ort")
    assert result.exit_code == 0
    assert "The verdict is advisory: no real inputs were given" in result.stderr
    result = toolkit("compare", folder)
    assert result.exit_code == 0
    assert "The verdict is advisory: no real inputs were given" in " ".join(result.output.split())
    result = toolkit("compare", folder, "--inputs", _sentences(tmp_path / "sentences.npz"))
    assert result.exit_code == 0
    assert "on 6 real, 38 synthetic samples" in result.output
    assert "advisory" not in result.output
    assert "path" not in Bundle.open(folder).model["inputs"]
    result = toolkit("convert", folder, "-p", "int8-static", "--runtime", "ort", "--inputs", tmp_path / "sentences.npz")
    assert result.exit_code == 0, result.output
    assert Bundle.open(folder).model["inputs"]["path"] == "../sentences.npz"


def test_inputs_that_are_gone_are_said_and_fail_nothing(tmp_path: Path) -> None:
    folder, sentences = tmp_path / "text", _sentences(tmp_path / "sentences.npz")
    assert toolkit("import", _text_model(tmp_path), "-o", folder, "--inputs", sentences).exit_code == 0
    sentences.unlink()
    result = toolkit("convert", folder, "-p", "fp16", "-p", "int8-static", "--runtime", "ort")
    assert result.exit_code == 2
    assert "the real inputs are gone" in result.output
    assert "model.fp16.onnx" in result.output
    page = tmp_path / "report.html"
    result = toolkit("compare", folder, "--html", page)
    assert result.exit_code == 0, result.output
    assert "the real inputs are gone" in " ".join(result.output.split())
    assert "The verdict is advisory: the real inputs are gone" in page.read_text()


_PICTURE = """<ir_version: 10, opset_import: ["": 18]>
g (float[1,10,14,CHANNELS] image, float[4,CHANNELS,3,3] kernel) => (float[1,4] y) {
  first = Transpose<perm = [0, 3, 1, 2]>(image)
  maps = Conv<pads = [1, 1, 1, 1]>(first, kernel)
  active = Relu(maps)
  pooled = GlobalAveragePool(active)
  y = Flatten(pooled)
}"""


def _compared(source: Path, folder: Path, inputs: Path, preprocess: str) -> str:
    """Import a model with real inputs, calibrate a TFLite file on them, and return the output of the comparison."""
    for command in (
        ("import", source, "-o", folder, "--inputs", inputs, "--preprocess", preprocess),
        ("convert", folder, "-p", "int8-static", "--runtime", "tflite"),
        ("compare", folder),
    ):
        result = toolkit(*command)
        assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_images_serves_a_model_that_is_neither_square_nor_channels_first(
    tmp_path: Path, channels: int
) -> None:
    kernel = np.random.default_rng(0).standard_normal((4, channels, 3, 3)).astype(np.float32)
    text = _PICTURE.replace("CHANNELS", str(channels))
    source, photos = _with_weights(tmp_path / "picture.onnx", text, kernel=kernel), tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.new("RGB", (30, 20), (60 * i, 90, 200 - 30 * i)).save(photos / f"{i}.jpg")
    folder, spec = tmp_path / "picture", "mean=0.5,std=0.25" + (",order=BGR" if channels == 3 else ",grey")
    compared = _compared(source, folder, photos, spec)
    assert "on 4 real, 38 synthetic samples" in compared
    bundle = Bundle.open(folder)
    feeds = timing_feeds(bundle, bundle.find("model", "tflite", "int8-static"))["image"]
    assert feeds.shape == (1, 10, 14, channels)
    expected = np.array([200, 90, 0]) / 255 if channels == 3 else np.array([0.587 * 90 + 0.114 * 200]) / 255
    np.testing.assert_allclose(feeds[0, 5, 7], (expected - 0.5) / 0.25, atol=0.05)  # JPEG rounds colours


def test_a_folder_of_recordings_serves_an_audio_model(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 18]>
    g (float[1,1,400] wave, float[4,1,9] kernel) => (float[1,4,392] y) { y = Conv(wave, kernel) }"""
    kernel = np.random.default_rng(0).standard_normal((4, 1, 9)).astype(np.float32)
    source, sounds = _with_weights(tmp_path / "audio.onnx", text, kernel=kernel), tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "tone.wav", 0.5 * np.sin(np.arange(1000) / 5), 16000)
    folder = tmp_path / "audio"
    compared = _compared(source, folder, sounds, "rate=16000")
    assert "on 2 real, 38 synthetic samples" in compared
    result = toolkit("bench", folder, "--time-limit", "0")
    assert result.exit_code == 0, result.output


def test_the_first_real_sample_is_what_is_timed(tmp_path: Path) -> None:
    folder, sentences = tmp_path / "text", _sentences(tmp_path / "sentences.npz")
    assert toolkit("import", _text_model(tmp_path), "-o", folder, "--inputs", sentences).exit_code == 0
    bundle = Bundle.open(folder)
    artifact = bundle.artifacts[0]
    feeds = timing_feeds(bundle, artifact)
    np.testing.assert_array_equal(feeds["ids"], np.load(sentences)["ids"][:1])
    with open_session(bundle, artifact, "ort", 1) as session:
        assert np.isfinite(session.run(feeds)["y"]).all()


def test_places_are_found_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _text_model(tmp_path)
    (tmp_path / "data").mkdir()
    _sentences(tmp_path / "data" / "sentences.npz")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for place in ("data/sentences.npz", "linked/sentences.npz"):
        result = toolkit("import", "text.onnx", "-o", "made/text", "--inputs", place)
        assert result.exit_code == 0, result.output
        assert Bundle.open(Path("made/text")).model["inputs"]["path"] == "../../data/sentences.npz"
    assert toolkit("convert", "made/text", "-p", "fp16", "--runtime", "ort").exit_code == 0
    monkeypatch.chdir(tmp_path / "made")
    for bundle in ("text", "../made/text", tmp_path / "made" / "text"):
        result = toolkit("compare", bundle)
        assert result.exit_code == 0, result.output
        assert "on 6 real, 38 synthetic samples" in result.output
    result = toolkit("compare", "text", "--inputs", "../data")
    assert "on 6 real, 38 synthetic samples" in result.output


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"token": np.zeros((1, 6), int)}, "expected an array 'ids' for the input of that name, it has token"),
        ({"ids": np.zeros((2, 6), int)}, "expected an array 'attention_mask' for the input of that name, it has ids"),
        ({"ids": np.zeros((2, 7), int)}, "input 'ids': expected int64 [samples, 6] or [1, 6], got int64 [2, 7]"),
        (
            {"ids": np.full((2, 6), 40), "attention_mask": np.ones((2, 6), int)},
            "input 'ids': expected indices of the table that reads them, -40 to 39, got 40 to 40",
        ),
        ({"ids": np.zeros((2, 6))}, "input 'ids': expected int64 [samples, 6] or [1, 6], got float64 [2, 6]"),
    ],
)
def test_wrong_inputs_are_one_line_and_exit_code_2(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    folder, wrong = tmp_path / "text", tmp_path / "wrong.npz"
    np.savez(wrong, **arrays)  # type: ignore[arg-type]  # numpy's stub wants a bool for every keyword
    source = _text_model(tmp_path)
    result = toolkit("import", source, "-o", folder, "--inputs", wrong)
    assert (result.exit_code, result.stderr.strip()) == (2, f"error: {wrong}: {message}")
    assert not folder.exists()
    assert toolkit("import", source, "-o", folder).exit_code == 0
    for command in (("convert",), ("compare",), ("bench",), ("bisect", "--candidate", "model.onnx")):
        result = toolkit(command[0], folder, *command[1:], "--inputs", wrong)
        assert (result.exit_code, result.stderr.strip()) == (2, f"error: {wrong}: {message}")


def test_a_model_of_ours_has_its_own_samples(tiny: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((1, 3, 8, 8), np.float32))
    for command in (("convert",), ("compare",), ("bench",), ("bisect", "--candidate", "detector.int8.tflite")):
        result = toolkit(command[0], tiny.folder, *command[1:], "--inputs", tmp_path / "a.npz")
        assert result.exit_code == 2
        assert "--inputs and --preprocess are for imported models, and this is a watermark model" in result.stderr


@pytest.mark.parametrize("command", ["import", "convert", "compare", "bisect", "bench"])
def test_help_shows_how_inputs_are_given(command: str) -> None:
    shown = " ".join(toolkit(command, "--help").output.split())
    assert "--inputs FILE.npz|DIR" in shown
    assert "mean=0.485 0.456 0.406,std=0.229 0.224 0.225,order=BGR" in shown
    _, _, examples = shown.partition("Example:")
    assert "--inputs " in examples
