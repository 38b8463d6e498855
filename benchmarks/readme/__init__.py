"""The README's figures stand between markers, and are written from committed results alone."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"
RESULTS = Path(__file__).parents[1] / "results"


def read(name: str) -> Any:
    """Read a committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table whose first `left` columns are text, and the others figures."""
    lines = [head, ["---"] * left + ["--:"] * (len(head) - left), *rows]
    shown = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]
    shown[1] = shown[1].replace(" ", "")
    return "\n".join(shown)


def write_block(name: str, text: str) -> None:
    """Replace the text between <!-- name --> and <!-- /name -->. Raises ValueError unless both are there, once."""
    readme = README.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    replaced, count = block.subn(lambda match: match[1] + text + match[2], readme)
    if count != 1:
        raise ValueError(f"{README}: expected one <!-- {name} --> block, found {count}")
    README.write_text(replaced, encoding="utf-8")
