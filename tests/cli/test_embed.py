"""`toolkit embed`: a marked file, or one line that says why not and nothing written."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.tiny import FOLDER
from toolkit.cli import main

IMAGES = Path(__file__).parents[1] / "images"
COFFEE = str(IMAGES / "coffee.jpg")


def embed(image: str, *arguments: str, message: str = "a5") -> Result:
    command = ["embed", image, "--message", message, "--bundle", str(FOLDER), *arguments]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def test_the_marked_image_is_written_in_the_format_that_its_name_says(tmp_path: Path) -> None:
    out = tmp_path / "marked.png"
    shown = embed(COFFEE, "-o", str(out))
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"{out}: tiny message a5, PSNR ")
    assert shown.stderr == f"warning: {FOLDER} has random weights (seed 0): its results mean nothing\n"
    with Image.open(out) as marked, Image.open(COFFEE) as original:
        assert marked.format == "PNG"
        assert marked.size == original.size
        assert marked.tobytes() != original.tobytes()


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    out = tmp_path / "marked.png"
    out.write_text("precious")
    refused = embed(COFFEE, "-o", str(out))
    assert (refused.exit_code, out.read_text()) == (2, "precious")
    assert refused.stderr == f"error: {out}: exists already; choose another name or pass --force\n"

    assert embed(COFFEE, "-o", str(out), "--force").exit_code == 0
    with Image.open(out) as marked:
        assert marked.format == "PNG"


@pytest.mark.parametrize(
    ("image", "out", "message", "said"),
    [
        ("gone.jpg", "out.png", "a5", "gone.jpg: no such image file"),
        (str(IMAGES / "NOTICE"), "out.png", "a5", "NOTICE: not an image"),
        (COFFEE, "out.pdf", "a5", "cannot write .pdf; use a name that ends in one of .jpg"),
        (COFFEE, "gone/out.png", "a5", "there is no folder"),
        (COFFEE, "out.png", "a", "message: expected 2 hex digits for 8 bits, got 'a'"),
        (COFFEE, "out.png", "a5a5", "message: expected 2 hex digits for 8 bits, got 'a5a5'"),
        (COFFEE, "out.png", "0x", "message: expected 2 hex digits for 8 bits, got '0x'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_written(
    tmp_path: Path, image: str, out: str, message: str, said: str
) -> None:
    shown = embed(image, "-o", str(tmp_path / out), message=message)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert len(shown.stderr.splitlines()) == 1
    assert shown.stderr.startswith("error: ")
    assert said in shown.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--message", "-o"])
def test_what_must_be_given_is_asked_for(option: str) -> None:
    arguments = {"--message": "a5", "-o": "out.png"}
    del arguments[option]
    shown = CliRunner().invoke(main, ["embed", COFFEE, *(part for pair in arguments.items() for part in pair)])
    assert shown.exit_code == 2
    assert shown.stderr.startswith("error: Missing option '")
