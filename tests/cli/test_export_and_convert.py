"""`toolkit models`, `export` and `convert`: what they refuse. What they make has its tests beside its code."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from backends.bundle import Bundle
from graphs.networks.models import MODELS
from toolkit import environments
from toolkit import environments as extras
from toolkit.cli import main


def toolkit(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(shown: Result) -> str:
    """The one line of a command that ended in exit code 2."""
    assert (shown.exit_code, shown.stdout) == (2, "")
    (line,) = shown.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_models_lists_every_model_in_both_forms() -> None:
    listed = [json.loads(line) for line in toolkit("models", "--json").stdout.splitlines()]
    assert [model["name"] for model in listed] == list(MODELS)
    assert listed[0]["name"] == "pocketseal"
    assert (listed[0]["bits"], listed[0]["image_size_px"]) == (64, 128)
    table = toolkit("models").stdout
    for name in MODELS:
        assert name in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sealpocket"], "no model named 'sealpocket'; there is pocketseal, videoseal-1.0"),
        (["videoseal-1.0"], "videoseal-1.0: no weights ship with this package; download its checkpoint"),
        (["pocketseal", "--random", "0", "--checkpoint", "x.pth"], "a checkpoint and random ones were both asked for"),
        (["pocketseal", "--random", "-1"], "Invalid value for '--random'"),
        (["pocketseal", "--random", "one"], "Invalid value for '--random'"),
        (["pocketseal", "--checkpoint", "gone.pth"], "gone.pth: no such checkpoint file"),
    ],
)
def test_an_export_that_cannot_be_done_leaves_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in refused(toolkit("export", *arguments, "-o", tmp_path / "build"))
    assert list(tmp_path.iterdir()) == []


def _truncated(path: Path) -> None:
    torch.save({"model": {"detector.x": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-500])


_FAULTS = {
    "truncated": (_truncated, "not a readable torch checkpoint"),
    "empty": (Path.touch, "not a readable torch checkpoint"),
    "code": (lambda path: torch.save({"model": Path.touch}, path), "could run code"),
    "layout": (lambda path: torch.save([1], path), 'expected {"model": state dict, ...}, got list'),
    "another": (lambda path: torch.save({"model": {"encoder.w": torch.zeros(3)}}, path), "does not fit pocketseal"),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_checkpoint_that_is_not_right_is_one_line(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "c.pth"
    write, said = _FAULTS[fault]
    write(path)
    assert said in refused(toolkit("export", "pocketseal", "--checkpoint", path, "-o", tmp_path / "build"))
    assert list(tmp_path.iterdir()) == [path]


def test_one_network_can_be_exported_alone_and_without_its_torch_weights(tmp_path: Path) -> None:
    arguments = ["pocketseal", "--random", 0, "--role", "detector", "--no-torch", "-o", tmp_path]
    shown = toolkit("export", *arguments)
    assert (shown.exit_code, "random weights (seed 0)" in shown.stderr) == (0, True)
    bundle = Bundle.open(tmp_path / "pocketseal")
    assert [artifact.file for artifact in bundle.artifacts] == ["detector.onnx"]
    assert bundle.weights.is_random
    assert "there is detector, embedder" in refused(toolkit("export", "pocketseal", "--role", "decoder"))


def test_an_export_does_not_replace_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "pocketseal").mkdir()
    (tmp_path / "pocketseal" / "thesis.txt").touch()
    assert "not a bundle" in refused(toolkit("export", "pocketseal", "--random", 0, "-o", tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["pocketseal", "thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-p", "int4"],
            "the direct route makes fp32, fp16, int8, int8-static, int8-w, int16x8, mixed, int8-full, not 'int4'",
        ),
        (["-p", "int8-static", "--route", "tf"], "the tf route makes fp32, fp16, int8, not 'int8-static'"),
        (["--route", "scenic"], "route: expected one of direct, tf, got 'scenic'"),
        (["-p", "int8-static"], "int8-static: needs calibration images: a folder of photographs, or 'generated'"),
        (["-p", "int16x8", "--calibration-method", "entropy"], "--calibration-method needs --calibration"),
        (["-p", "mixed"], "precision mixed needs a recipe file, or a budget and images"),
        (["-p", "mixed", "--budget", "flips<=0.2%"], "mixed: give a recipe file, or a budget with a folder of images"),
        (["-p", "mixed", "--budget", "2%", "--images", "."], 'budget: expected "flips<=0.2%"'),
        (["-p", "mixed", "--budget", "size<=1MB", "--images", "gone"], "images gone: no such folder"),
        (["-p", "mixed", "--recipe", "gone.json"], "recipe gone.json: cannot read: No such file or directory"),
        (["--recipe", "gone.json"], "recipe gone.json: cannot read: No such file or directory"),
        (["--calibration", "generated"], "no precision that needs them: int8-static, int16x8, int8-full do"),
        (
            ["-p", "int8-static", "--calibration", "generated", "--calibration-method", "max"],
            "calibration method: expected one of min-max, percentile, entropy, got 'max'",
        ),
        (["-p", "int8-static", "--calibration", "gone"], "calibration gone: no such folder"),
    ],
)
def test_a_conversion_that_cannot_be_done_changes_nothing(tiny: Bundle, arguments: list[str], said: str) -> None:
    before = {path.name: path.read_bytes() for path in tiny.folder.iterdir()}
    assert said in refused(toolkit("convert", tiny.folder, *arguments))
    assert {path.name: path.read_bytes() for path in tiny.folder.iterdir()} == before


def test_convert_without_a_bundle_or_a_converter_names_the_command_that_helps(
    tmp_path: Path, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "make one with `toolkit export`" in refused(toolkit("convert", tmp_path))

    monkeypatch.delenv("TOOLKIT_CONVERTER", raising=False)
    monkeypatch.setattr(environments, "default_folder", lambda: tmp_path / "converter")
    assert "run `toolkit setup-converter`" in refused(toolkit("convert", tiny.folder))

    monkeypatch.setenv("TOOLKIT_CONVERTER", str(tmp_path / "gone"))
    assert "TOOLKIT_CONVERTER names" in refused(toolkit("convert", tiny.folder))


@pytest.mark.parametrize("command", [["export", "pocketseal", "--random", "0"], ["convert", "build/pocketseal"]])
def test_without_the_extra_the_install_command_is_named(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "onnx" else object())
    assert refused(toolkit(*command)) == "error: not installed: onnx; run `pip install onnx`"


def test_setup_converter_leaves_a_full_folder_alone_and_says_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    assert "holds something else" in refused(toolkit("setup-converter", "--dir", tmp_path))


def test_setup_converter_does_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "is_complete", lambda folder: True)
    shown = toolkit("setup-converter", "--dir", tmp_path)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", f"{tmp_path} is ready\n")
