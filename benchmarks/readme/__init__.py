"""The README's blocks of figures, which are written between markers, from committed results only.

A measurement that was made on a second machine as well has a second result, NAME@MACHINE.json beside NAME.json, and its
block then has a table for each machine.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.machine import Machine

README = Path(__file__).parents[2] / "README.md"
RESULTS = Path(__file__).parents[1] / "results"


def path_of(name: str) -> Path:
    """Return the path of a committed result, benchmarks/results/`name`.json, which need not exist."""
    return RESULTS / f"{name}.json"


def read(name: str) -> Any:
    """Return the committed result benchmarks/results/`name`.json."""
    return json.loads(path_of(name).read_text(encoding="utf-8"))


def machines(name: str) -> list[str]:
    """Return the endings of the results of a measurement: "" for `name`.json, then "@MACHINE" for other machines."""
    return ["", *sorted(f"@{path.stem.rpartition('@')[2]}" for path in RESULTS.glob(f"{name}@*.json"))]


def measured_on(machine: Machine, threads: int) -> str:
    """Return text on the place of a measurement, such as "2 threads of an Intel Xeon (AVX2 only), 2026-01-02"."""
    name = machine.processor or machine.system
    sets = f" ({machine.instruction_sets})" if machine.instruction_sets else ""
    load = "" if machine.load is None else f", load {machine.load:.1f} at the start"
    return f"{threads} threads of {'an' if name[0] in 'AEIOU' else 'a'} {name}{sets}, {machine.date}{load}"


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
