"""`toolkit run` of models that are not a watermark's: what it prints, what it writes, what it refuses."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from backends.bundle import Bundle
from backends.precision import RECIPES
from backends.registry import BACKENDS
from tests import deepencoder_tiny
from tests.clips import write_video
from tests.kinds_tiny import exported
from tests.tiny import FOLDER
from toolkit.cli import main
from toolkit.models.kind import all_kinds


def run(kind: str, *arguments: object) -> Result:
    folder = FOLDER if kind == "watermark" else exported(kind).folder
    return CliRunner().invoke(main, ["run", "--bundle", str(folder), *map(str, arguments)], catch_exceptions=False)


def row_of(shown: Result) -> dict[str, Any]:
    assert shown.exit_code == 0, shown.stderr
    (line,) = shown.stdout.splitlines()
    row: dict[str, Any] = json.loads(line)
    return row


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written without --output is written here."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (270, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "page.png")
    return tmp_path / "page.png"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    frames = [Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(4)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    return tmp_path / "clip.gif"


@pytest.mark.parametrize(("mode", "tokens", "grid"), [("small", 7, [2, 2]), ("gundam", 4 * 7 + 13, [4, 6])])
def test_a_page(page: Path, mode: str, tokens: int, grid: list[int]) -> None:
    row = row_of(run("deepencoder", page, "--mode", mode, "-o", page.parent / "out", "--json"))
    assert (row["mode"], row["tokens"], row["grid"], row["weights"]) == (mode, tokens, grid, "random")
    arrays, picture = (Path(file) for file in row["files"])
    with np.load(arrays) as held:
        assert held["sequence"].shape == (tokens, 40)
        assert held["grid"].shape == (*grid, 40)
    assert size_of(picture) == (400, 270)


def test_a_first_run_is_told_apart_from_the_others(page: Path) -> None:
    again = page.with_name("again.png")
    shutil.copy(page, again)
    shown = run("deepencoder", page, again, "--mode", "gundam", "-o", page.parent / "out")
    first, second = (line for line in shown.stdout.splitlines() if " ms" in line)
    number = r"\d+\.\d ms"
    assert re.fullmatch(rf"  \w+ {number} \(first run\)(, then \d x {number})?; .*\(first run\).*", first)
    assert "first run" not in second
    assert re.search(rf"small 6 x {number}", second)


def test_what_the_compression_saves_is_counted_and_timed(page: Path) -> None:
    row = row_of(run("deepencoder", page, "--mode", "small", "--compression", "-o", page.parent, "--json"))
    saved = row["compression"]
    assert (saved["tokens_with"], saved["tokens_without"]) == (4, 64)
    clip = deepencoder_tiny.config(128).clip
    dense = clip.depth * 2 * clip.dim * (4 * clip.dim + 2 * clip.mlp_dim)
    products = clip.depth * 4 * clip.dim
    # Of CLIP: each token's dense layers, each pair's two products; the class token is one more.
    expected = dense * (65 - 5) + products * (65**2 - 5**2)
    assert saved["flops_without"] - saved["flops_with"] == expected
    assert saved["clip_seconds_with"] > 0
    assert saved["clip_seconds_without"] > 0
    shown = run("deepencoder", page, "--mode", "small", "--compression", "-o", page.parent)
    assert "4 tokens instead of 64" in shown.stdout


@pytest.mark.parametrize("query", ["shallow", "deep"])
def test_a_clip(clip: Path, query: str) -> None:
    """All of its four frames, which are more than a query graph takes at once."""
    latents = clip.with_name("latents.npz")
    np.savez(latents, np.random.default_rng(1).standard_normal((4, 4, 8, 8), dtype=np.float32))
    out = clip.parent / "out"
    row = row_of(run("foveated", clip, "--frames", 9, "--query", query, "--latents", latents, "-o", out, "--json"))
    assert (row["query"], row["frames"]) == (query, 4)
    assert row["loss"] == pytest.approx(row["loss_fine"] + row["loss_coarse"])
    arrays, picture, animation = (Path(file) for file in row["files"])
    with np.load(arrays) as held:
        assert held["fine"].shape == (4, 4, 8, 8)
        assert held["coarse_attention"].shape == (4, 4, 4)
    assert size_of(picture) == (4 * 192, 3 * 192)
    assert size_of(animation) == (3 * 192, 192)
    with Image.open(animation) as moving:
        assert getattr(moving, "n_frames", 1) == 4
    assert len(row["timing_ms"]["encode_frames"]) == 4


def test_a_video_is_a_clip_too_and_so_many_of_its_frames_are_seen_as_asked(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", frames=12)
    for asked, seen in (((), 3), (("--frames", 5), 5)):  # by default as many as a query takes at once
        row = row_of(run("foveated", tmp_path / "clip.mp4", *asked, "-o", tmp_path, "--json"))
        assert row["frames"] == seen
        assert size_of(Path(row["files"][1])) == (seen * 192, 3 * 192)


def test_a_folder_of_frames_is_a_clip_too(clip: Path) -> None:
    folder = clip.parent / "frames"
    folder.mkdir()
    with Image.open(clip) as image:
        for i in range(3):
            image.seek(i)
            image.convert("RGB").save(folder / f"{i}.png")
    row = row_of(run("foveated", folder, "-o", clip.parent, "--json"))
    assert (row["frames"], row["loss"]) == (3, None)


def test_an_image(page: Path) -> None:
    out = page.parent / "out"
    row = row_of(run("captioner", page, "--beams", 2, "--similar", "7 9", "--caption", "7 9", "-o", out, "--json"))
    assert all(0 <= token < 40 for token in row["tokens"])
    losses = row["losses"]
    assert losses["loss"] == pytest.approx(
        losses["reconstruction"] + 2 * losses["caption"] + 0.5 * losses["contrastive"]
    )
    assert isinstance(row["similarity"], float)
    arrays, picture = (Path(file) for file in row["files"])
    with np.load(arrays) as held:
        assert held["latent"].shape == (1, 12)
    assert size_of(picture) == (32, 32)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One word a token, in the tiny model's vocabulary of 40."""
    words = ["<pad>", "<begin>", "<end>", *(f"w{i}" for i in range(3, 40))]
    words[7], words[9] = "red", "cat"
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="w3"))
    made.pre_tokenizer = Whitespace()
    made.enable_padding(length=30)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_with_a_tokenizer_texts_are_words(page: Path, tokenizer: Path) -> None:
    spoken = ["--tokenizer", tokenizer, "--similar", "red cat", "--caption", "cat", "-o", page.parent, "--json"]
    ids = ["--similar", "7 9", "--caption", "9", "-o", page.parent, "--json"]
    with_words, with_ids = (row_of(run("captioner", page, *arguments)) for arguments in (spoken, ids))
    assert with_words["text"] == " ".join(
        {7: "red", 9: "cat", 0: "<pad>", 1: "<begin>"}.get(token, f"w{token}") for token in with_words["tokens"]
    )
    assert with_ids["text"] is None
    for key in ("tokens", "similarity", "losses"):
        assert with_words[key] == with_ids[key]


def test_a_tokenizer_that_does_not_fit_is_one_line(page: Path, tokenizer: Path, tmp_path: Path) -> None:
    large = Tokenizer(WordLevel({f"w{i}": i for i in range(41)}, unk_token="w3"))
    large.save(str(tmp_path / "large.json"))
    (tmp_path / "broken.json").write_text("{")
    for arguments, said in (
        (["--tokenizer", "gone.json"], "gone.json: no such tokenizer file"),
        (["--tokenizer", tmp_path / "broken.json"], "broken.json: not a tokenizer.json that can be read"),
        (["--tokenizer", tmp_path / "large.json"], "expected at most the 40 tokens that the model has, got 41"),
        (["--tokenizer", tokenizer, "--similar", "cat " * 30], "expected at most 20 tokens"),
    ):
        shown = run("captioner", page, *arguments)
        assert (shown.exit_code, shown.stdout) == (2, "")
        assert said in shown.stderr.splitlines()[-1]


def test_a_variant_is_a_bundle_of_that_name(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[object] = []

    def find(model: object) -> Path:
        named.append(model)
        return exported("captioner").folder

    monkeypatch.setattr("toolkit.cli.console.find_bundle", find)
    invoked = CliRunner().invoke(main, ["run", "-m", "captioner", "--variant", "tiny", str(page), "--json"])
    assert invoked.exit_code == 0
    assert named == ["captioner-tiny"]
    alone = CliRunner().invoke(main, ["run", "--variant", "tiny", str(page)])
    assert (alone.exit_code, "--variant goes with --model" in alone.stderr) == (2, True)


def test_without_json_the_answer_is_for_a_person(page: Path) -> None:
    shown = run("deepencoder", page, "--mode", "small", "-o", page.parent)
    assert shown.exit_code == 0
    assert "small: 7 tokens of 40, grid of 2 x 2" in shown.stdout
    assert "its results mean nothing" in shown.stderr


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("watermark", ["--mode", "tiny"], "--mode is for deepencoder models, and this is a watermark"),
        ("watermark", ["-o", "out"], "--output is for deepencoder, foveated and captioner models"),
        ("deepencoder", ["--expect", "ab"], "--expect is for watermark models, and this is a deepencoder"),
        ("deepencoder", ["--mode", "huge"], "mode: expected one of small, base, gundam, got 'huge'"),
        ("captioner", ["--similar", "a cat"], "expected token ids apart by spaces"),
        ("captioner", ["--caption", "7 4000"], "token 4000 is not in the vocabulary, which has 40"),
        ("captioner", ["--length", "20"], "a length of 1 to 19"),
        ("foveated", ["--latents", "gone.npz"], "gone.npz: not an .npz that can be read"),
        ("foveated", ["--query", "sideways"], "'sideways' is not one of 'shallow', 'deep'"),
    ],
)
def test_what_cannot_be_is_one_line(page: Path, kind: str, arguments: list[str], said: str) -> None:
    shown = run(kind, page, *arguments)
    assert (shown.exit_code, shown.stdout) == (2, "")
    (line,) = [line for line in shown.stderr.splitlines() if not line.startswith("warning: ")]
    assert said in line
    assert not list(page.parent.glob("*.npz"))


def test_a_clip_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0" * 100)
    (tmp_path / "nothing.mp4").touch()
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("clip.mp4", "give a video, an animated image or a folder of frames"),
        ("nothing.mp4", "nothing.mp4: an empty file"),
        ("empty", "no images in this folder"),
        ("gone", "no such clip"),
    ):
        shown = run("foveated", tmp_path / name)
        assert shown.exit_code == 2
        assert said in shown.stderr.splitlines()[-1]


def test_the_help_has_the_options_of_each_kind_under_its_name_and_every_backend_and_precision() -> None:
    shown = CliRunner().invoke(main, ["run", "--help"], terminal_width=400).output
    sections = {part.partition(":\n")[0]: part.partition(":\n")[2] for part in shown.split("\n\n") if ":\n" in part}
    for kind in all_kinds():
        for option in kind.options():
            (title,) = (
                title for title, text in sections.items() if "Options" in title and f"{option.opts[-1]} " in text
            )
            assert title.startswith("Options for ")
            assert kind.name in title
        assert (kind.summary in sections["Kinds of models"]) is kind.is_run
    assert ", ".join([*RECIPES][:-1]) in sections["Options"]
    assert ", ".join(BACKENDS.names[:-1]) in sections["Options"]
    for titles in ("Options for watermark models", "Options for deepencoder, foveated and captioner models"):
        assert titles in sections


def test_an_imported_graph_is_not_run(tmp_path: Path, page: Path) -> None:
    folder = tmp_path / "imported"
    bundle = Bundle.open(FOLDER)
    shutil.copytree(bundle.folder, folder)
    replace(bundle, folder=folder, model={"name": "m", "kind": "tensor"}).write()
    shown = CliRunner().invoke(main, ["run", "--bundle", str(folder), str(page)])
    assert shown.exit_code == 2
    assert "models of kind 'tensor' are not run; there is watermark, deepencoder, foveated, captioner" in shown.stderr


@pytest.mark.parametrize(("role", "missing"), [("encode_frames", "query_shallow"), ("query_shallow", "encode_frames")])
def test_a_foveated_bundle_of_one_graph_says_which_other_is_missing(
    role: str, missing: str, clip: Path, tmp_path: Path
) -> None:
    bundle = exported("foveated")
    folder = shutil.copytree(bundle.folder, tmp_path / "one")
    model = {key: value for key, value in bundle.model.items() if key != "learned"}  # as one graph is exported
    artifacts = tuple(artifact for artifact in bundle.artifacts if artifact.role == role)
    replace(bundle, folder=folder, model=model, artifacts=artifacts).write()
    shown = CliRunner().invoke(main, ["run", "--bundle", str(folder), str(clip)], catch_exceptions=False)
    assert shown.exit_code == 2
    assert f"no {missing} onnx fp32; there is {role}.onnx" in shown.stderr
