"""A file of a right hash on which LiteRT calls abort(): every command that runs it ends in one line and exit code 2."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from backends.bundle import Bundle
from tests.deadly import with_deadly_file
from toolkit.cli import main

COFFEE = str(Path(__file__).parents[1] / "images" / "coffee.jpg")
COMMANDS = {
    "run": [COFFEE, "--backend", "tflite", "-p", "int8", "--bundle"],
    "compare": [],
    "bench": ["--time-limit", "1"],
    "bisect": ["--candidate", "detector.int8.tflite"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_ends_the_process_is_one_line(tiny: Bundle, command: str) -> None:
    bundle, artifact = with_deadly_file(tiny, "int8")
    arguments = [command, *COMMANDS[command], str(bundle.folder)]
    shown = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert (shown.exit_code, shown.stdout) == (2, "")
    (line,) = (line for line in shown.stderr.splitlines() if not line.startswith("warning: "))
    assert line.startswith("error: ")
    assert "was killed by SIGABRT" in line
    assert (artifact.file if command != "bisect" else "the layer that makes logits") in line


def test_the_other_files_of_such_a_bundle_run(tiny: Bundle) -> None:
    bundle, _ = with_deadly_file(tiny, "int8")
    for choice in (["--backend", "ort", "-p", "fp32"], ["--backend", "tflite", "-p", "fp32"]):
        shown = CliRunner().invoke(main, ["run", COFFEE, *choice, "--bundle", str(bundle.folder)])
        assert shown.exit_code == 0
