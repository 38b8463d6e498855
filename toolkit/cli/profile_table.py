"""Where the time of each file goes, as a person reads it."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.profiling.modules import folded

_ROWS = 8


def print_profile(profiles: Sequence[dict[str, Any]], console: Console) -> None:
    """A table a file: kinds of operators and modules of the source, what takes longest first."""
    for profile in profiles:
        console.print(Text(f"{profile['file']}: operators, as {profile['runtime']} measures them", "bold"))
        if profile["by_kind"]:
            console.print(_table(profile))
        if profile["note"]:
            console.print(Text(f"{profile['file']}: {profile['note']}", "yellow"))


def _table(profile: dict[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, justify in (("kind", "left"), ("n", "right"), ("ms", "right"), ("", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    kinds = [(one["kind"], one["count"], one["total_ms"], one["share"]) for one in profile["by_kind"]]
    if len(kinds) > _ROWS:
        kinds, rest = kinds[: _ROWS - 1], kinds[_ROWS - 1 :]
        counts, times, shares = zip(*(one[1:] for one in rest), strict=True)
        kinds.append((f"{len(rest)} more kinds", sum(counts), sum(times), sum(shares)))
    modules = folded({one["module"]: one["total_ms"] for one in profile["by_module"]}, _ROWS)
    whole = sum(modules.values()) or 1.0
    if modules:
        for name, justify in (("module", "left"), ("ms", "right"), ("", "right")):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for kind, module in zip_longest(kinds, modules.items()):
        left = ["", "", "", ""] if kind is None else [kind[0], str(kind[1]), f"{kind[2]:.2f}", f"{kind[3]:.0%}"]
        right = [] if not modules else ["", "", ""]
        if module is not None:
            right = [module[0] or "(no one module)", f"{module[1]:.2f}", f"{module[1] / whole:.0%}"]
        table.add_row(*left, *right)
    return table
