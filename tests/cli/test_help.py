import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from toolkit.cli import COMMANDS, main

HEAVY = ["numpy", "PIL", "rich", "torch", "onnx", "onnxruntime", "ai_edge_litert", "onnx2tf", "tensorflow"]
ASK_FOR_HELP = """
import contextlib, io, json, sys
from toolkit.cli import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(arguments)
    assert "Usage: " in out.getvalue(), arguments
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_no_help_text_imports_a_runtime() -> None:
    asked = [["--help"], *([name, "--help"] for name in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", ASK_FOR_HELP, json.dumps(asked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout)
    assert "click" in imported
    assert not set(HEAVY) & set(imported)


def test_the_commands_are_those_of_the_contract() -> None:
    expected = "ship models export import convert compare bisect bench embed run doctor setup-converter"
    assert list(COMMANDS) == expected.split()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    example = shown.output.partition("Example:\n")[2].split("\n\n")[0].strip()
    assert example.startswith(f"toolkit {name}")


def test_help_lists_every_command_with_its_line() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert f"{name}  " in shown.output
        assert line in shown.output


def test_without_a_command_the_help_goes_to_stderr_and_is_bad_usage() -> None:
    shown = CliRunner().invoke(main, [])
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert "Commands:" in shown.stderr


def test_completion_knows_the_commands_and_their_options() -> None:
    def complete(words: str) -> list[str]:
        variables = {
            "_TOOLKIT_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        shown = CliRunner().invoke(main, [], prog_name="toolkit", env=variables)
        return [line.partition(",")[2] for line in shown.stdout.splitlines()]

    assert complete("toolkit mod") == ["models"]
    assert "--json" in complete("toolkit models --")
