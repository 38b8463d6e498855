"""The whole chain at a published size, as a person types it: export, convert, embed, run."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from toolkit.cli import main

COFFEE = Path(__file__).parents[1] / "images" / "coffee.jpg"


def toolkit(*arguments: object) -> Result:
    shown = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert shown.exit_code == 0, shown.stderr
    return shown


@pytest.mark.large
def test_videoseal_runs_on_every_backend_and_reads_the_same_message(tmp_path: Path) -> None:
    bundle, marked = tmp_path / "videoseal-1.0", tmp_path / "marked.png"
    toolkit("export", "videoseal-1.0", "--random", 0, "-o", tmp_path)
    toolkit("convert", bundle, "-p", "fp32", "-p", "int8")
    toolkit("embed", COFFEE, "--message", "01234567" * 8, "--bundle", bundle, "-o", marked)

    messages = {}
    for choice in ("torch fp32", "ort fp32", "tflite fp32", "ort int8", "tflite int8"):
        backend, precision = choice.split()
        row = json.loads(toolkit("run", marked, "--bundle", bundle, "-b", backend, "-p", precision, "--json").stdout)
        assert (row["bits"], row["detected"], row["weights"]) == (256, None, "random")
        messages[backend, precision] = int(row["message"], 16)
    reference = messages["torch", "fp32"]
    for (backend, precision), message in messages.items():
        different = (message ^ reference).bit_count()
        # Logits of random weights lie near 0, where rounding alone decides a bit.
        assert different <= (0 if precision == "fp32" else 8), (backend, precision, different)
