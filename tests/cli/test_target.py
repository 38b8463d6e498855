"""A result that could not be written is said before anything is measured."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from backends.bundle import Bundle
from toolkit.cli import main

OPTIONS = [
    ("compare", "--json"), ("compare", "--html"), ("compare", "--record"), ("bench", "--json"), ("bisect", "--json"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_a_folder_that_is_missing_is_said_at_once(tiny: Bundle, command: str, option: str) -> None:
    more = ["--candidate", "detector.int8.tflite"] if command == "bisect" else []
    target = tiny.folder / "gone" / "result"
    shown = CliRunner().invoke(main, [command, str(tiny.folder), *more, option, str(target)], catch_exceptions=False)
    assert (shown.exit_code, shown.stdout) == (2, "")
    (line,) = shown.stderr.splitlines()
    assert f"'{option}': {target}: there is no folder {target.parent}" in line


@pytest.mark.parametrize(("command", "option"), [one for one in OPTIONS if one[1] != "--record"])
def test_a_folder_in_the_file_s_place_is_said_at_once(tiny: Bundle, command: str, option: str, tmp_path: Path) -> None:
    more = ["--candidate", "detector.int8.tflite"] if command == "bisect" else []
    shown = CliRunner().invoke(main, [command, str(tiny.folder), *more, option, str(tmp_path)], catch_exceptions=False)
    assert (shown.exit_code, shown.stdout) == (2, "")
    (line,) = shown.stderr.splitlines()
    assert "expected a file name, got a folder" in line
