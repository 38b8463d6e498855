"""What happens when a command fails: one line on stderr, and an exit code that says which kind of failure it was."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from backends.errors import InvalidInput
from toolkit.cli.group import CommandGroup


def failing_with(error: BaseException) -> CommandGroup:
    @click.command()
    def fail() -> None:
        raise error

    group = CommandGroup({}, name="toolkit")
    group.get_command = lambda ctx, cmd_name: fail  # type: ignore[method-assign]
    return group


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InvalidInput("photo.jpg: expected an image,\n got text"), "error: photo.jpg: expected an image, got text", 2),
        (PermissionError(13, "Permission denied", "out.png"), "error: [Errno 13] Permission denied: 'out.png'", 2),
        (click.BadParameter("must be hex"), "error: Invalid value: must be hex", 2),
        (click.ClickException("no"), "error: no", 2),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_a_failure_is_one_line_and_a_code(error: BaseException, line: str, code: int) -> None:
    shown = CliRunner().invoke(failing_with(error), ["fail"])
    assert shown.stdout == ""
    assert shown.stderr.strip().partition(";")[0] == line
    assert shown.exit_code == code


def test_a_bug_keeps_its_traceback() -> None:
    shown = CliRunner().invoke(failing_with(ZeroDivisionError("bug")), ["fail"])
    assert isinstance(shown.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frobnicate"], "error: No such command 'frobnicate'; see `toolkit --help`"),
        (["models", "--colour"], "error: No such option '--colour'; see `toolkit models --help`"),
        (["models", "extra"], "error: Got unexpected extra argument (extra); see `toolkit models --help`"),
    ],
)
def test_bad_usage_is_one_line_that_names_the_help(arguments: list[str], line: str) -> None:
    done = subprocess.run([toolkit(), *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["--help"]])
def test_a_reader_that_went_away_is_no_error_and_no_judgement(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([toolkit(), *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def toolkit() -> str:
    """The installed program, beside the Python that runs the tests."""
    return str(Path(sys.executable).with_name("toolkit"))
