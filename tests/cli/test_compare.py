"""`toolkit compare`: exit codes, the table, and the file of numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backends.bundle import Bundle
from toolkit.cli import main


def toolkit(*arguments: object, columns: int = 80) -> Result:
    runner = CliRunner(env={"COLUMNS": str(columns)})
    return runner.invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def detector(tiny: Bundle) -> Bundle:
    """The tiny bundle without its embedder, in its own folder."""
    bundle = replace(tiny, artifacts=tuple(a for a in tiny.artifacts if a.role == "detector"))
    bundle.write()
    return bundle


@pytest.mark.parametrize("columns", [80, 120])
def test_a_good_bundle_ends_in_0_with_a_table_that_fits(detector: Bundle, columns: int, tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    shown = toolkit("compare", detector.folder, "--json", out, columns=columns)
    assert (shown.exit_code, "random weights" in shown.stderr) == (0, True)
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[-1] == f"tiny: {len(detector.artifacts) - 1} of {len(detector.artifacts) - 1} files pass"
    assert not any("…" in line for line in lines)
    for artifact in detector.artifacts:
        if artifact.format != "torch":
            assert any(line.split()[:1] == [artifact.file.removeprefix("detector.")] for line in lines), artifact.file
    document = json.loads(out.read_text())
    assert document["passed"] is True
    (role,) = document["roles"]
    assert role["reference"]["file"] == "detector.safetensors"
    assert any(line.split() == ["fp32.tflite", "100%", "float32", "100%", "float32"] for line in lines)
    types = {file["file"]: (file["weights"], file["operations"]) for file in role["files"]}
    assert types["detector.fp32.tflite"] == ({"float32": 1.0}, {"float32": 1.0})
    weights, operations = types["detector.int8.tflite"]
    assert sum(weights.values()) == pytest.approx(1)
    assert operations == {"int8": 1.0}
    for file in role["files"]:
        assert file["total"]["outputs"]["logits"]["histogram"]["counts"]
        assert file["reason"]


def test_a_file_that_differs_ends_in_1_and_the_number_is_named(detector: Bundle, tmp_path: Path) -> None:
    int8 = detector.find("detector", "tflite", "int8")
    fp32 = detector.find("detector", "tflite", "fp32")
    others = tuple(a for a in detector.artifacts if a not in (int8, fp32))
    replace(detector, artifacts=(*others, replace(int8, precision="fp32"))).write()
    out = tmp_path / "parity.json"
    shown = toolkit("compare", detector.folder, "--json", out)
    assert shown.exit_code == 1
    assert f"FAIL {int8.file}: logits: relative_l2 " in shown.stdout
    assert "expected at most 0.0001" in " ".join(shown.stdout.split())
    assert json.loads(out.read_text())["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone"], "gone: no bundle here"),
        (["TINY", "--images", "gone"], "images gone: no such folder"),
        (["TINY", "--threads", "0"], "Invalid value for '--threads'"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_2(detector: Bundle, arguments: list[str], said: str) -> None:
    shown = toolkit("compare", *(str(detector.folder) if a == "TINY" else a for a in arguments))
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert said in shown.stderr.splitlines()[-1]
