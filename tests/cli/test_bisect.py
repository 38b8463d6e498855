"""`toolkit bisect`: the table, the file of layers, and exit codes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backends.bundle import Bundle, WeightsOrigin
from tests.bisect.small import small
from toolkit.cli import main


def toolkit(*arguments: object, columns: int = 80) -> Result:
    runner = CliRunner(env={"COLUMNS": str(columns)})
    return runner.invoke(main, ["bisect", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small(tmp_path)


@pytest.mark.parametrize("columns", [80, 120])
def test_it_ends_in_0_with_a_table_that_fits_and_a_script_that_runs(
    bundle: Bundle, columns: int, tmp_path: Path
) -> None:
    out, repro = tmp_path / "layers.json", tmp_path / "repro"
    shown = toolkit(bundle.folder, "--candidate", "model.int8.tflite", "--json", out, "--repro", repro, columns=columns)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0].strip() == "small: model.int8.tflite against model.onnx"
    assert max(map(len, lines[:-1])) <= columns
    assert lines[-1].endswith(f"python {repro}/repro.py")
    assert subprocess.run([sys.executable, repro / "repro.py"], capture_output=True, check=True).stdout
    document = json.loads(out.read_text())
    ranked = sorted(document["layers"], key=lambda layer: -layer["introduced"])
    rows = [line.split() for line in lines if "FULLY_CONNECTED" in line]
    assert float(rows[0][0]) == pytest.approx(ranked[0]["introduced"], rel=0.06)  # two digits
    assert rows[0][2] == ranked[0]["tensor"]


def test_random_weights_are_labelled(bundle: Bundle) -> None:
    replace(bundle, weights=WeightsOrigin("random", "0" * 64, "seed 0")).write()
    shown = toolkit(bundle.folder, "--candidate", bundle.folder / "model.int8.onnx")
    assert shown.exit_code == 0
    assert "random weights" in shown.stderr
    assert "small (random weights): model.int8.onnx against model.onnx" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone", "--candidate", "x"], "gone: no bundle here"),
        (["SMALL"], "Missing option '--candidate'"),
        (["SMALL", "--candidate", "gone.onnx"], "no candidate 'gone.onnx'; there is model.onnx"),
        (["SMALL", "--candidate", "model.onnx"], "model.onnx is the reference itself"),
        (["SMALL", "--candidate", "model.onnx", "--pass", "gone"], "no pass 'gone'"),
        (["SMALL", "--candidate", "model.onnx", "--pass", "simplify", "--before", "x"], "--before and --pass both"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_2(bundle: Bundle, arguments: list[str], said: str) -> None:
    before = set(bundle.folder.parent.iterdir())
    shown = toolkit(*(str(bundle.folder) if argument == "SMALL" else argument for argument in arguments))
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert said in shown.stderr.splitlines()[-1]
    assert set(bundle.folder.parent.iterdir()) == before, "nothing is left"
