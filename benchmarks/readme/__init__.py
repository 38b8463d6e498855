"""The README's blocks of figures, which are written between markers, from committed results only."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"
RESULTS = Path(__file__).parents[1] / "results"


def read(name: str) -> Any:
    """Return the committed result benchmarks/results/`name`.json."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table. The first `left` columns hold text, the others right-aligned figures."""
    lines = [head, ["---"] * left + ["--:"] * (len(head) - left), *rows]
    shown = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]
    shown[1] = shown[1].replace(" ", "")
    return "\n".join(shown)


def write_block(name: str, text: str) -> None:
    """Replace the README's text between <!-- name --> and <!-- /name -->. Raises ValueError unless both exist once."""
    readme = README.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    replaced, count = block.subn(lambda match: match[1] + text + match[2], readme)
    if count != 1:
        raise ValueError(f"{README}: expected one <!-- {name} --> block, found {count}")
    README.write_text(replaced, encoding="utf-8")
