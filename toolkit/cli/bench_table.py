"""A bench result as a person reads it, on 80 columns and up."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.bench.against import changes, differences
from toolkit.bench.rounds import AGREE, P90_SAMPLES

_WIDE = 110


def print_result(result: dict[str, Any], console: Console) -> None:
    """One table a role, what it was measured with, and what did not stand still."""
    machine = result["machine"]
    for role, reference in result["reference"].items():
        files = [file for file in result["files"] if file["role"] == role]
        console.print(
            Text(f"{role}: median of interleaved rounds, {result['threads']} threads, ratios to {reference}", "bold")
        )
        console.print(_table(role, files, console.width))
        for file in files:
            if not file["timing"]["settled"]:
                timing = file["timing"]
                line = f"did not stand still in {timing['runs']} runs, the last windows are {timing['noise']:.0%} apart"
                console.print(Text(f"{file['file']}: {line}", "yellow"))
            if file["in_use"].get("delegated_parts") == 0:
                console.print(Text(f"{file['file']}: no delegate took any of it", "yellow"))
    used = {file["in_use"]["runtime"]: file["in_use"]["version"] for file in result["files"]}
    console.print(
        Text(
            f"{machine.get('processor', machine['system'])}, {machine['cores']} cores; "
            + ", ".join(f"{runtime} {version}" for runtime, version in used.items()),
            "dim",
        )
    )


def print_against(before: dict[str, Any], after: dict[str, Any], console: Console) -> None:
    """What is outside the noise, and first whatever makes the two runs unlike."""
    for line in differences(before, after):
        console.print(Text(f"not the same: {line}", "yellow"))
    found = changes(before, after)
    outside = [change for change in found if change.outside_noise]
    for change in outside:
        style = "red" if change.ratio > 1 else "green"
        console.print(
            Text(
                f"{change.file}, {change.figure}: {change.before:.3g} then, {change.after:.3g} now "
                f"({change.ratio - 1:+.0%}, noise {change.noise:.0%})",
                style,
            )
        )
    console.print(Text(f"{len(found) - len(outside)} of {len(found)} figures are within the noise", "bold"))


def _table(role: str, files: list[dict[str, Any]], width: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("file", no_wrap=wide, overflow="fold")
    names = ["MB", "ms", "ratio", "p90", "load\nms", "RSS\nMB", "runs/s"]
    if wide:
        names = ["MB", "ms", "ratio", "noise", "p90", "p99", "load ms", "first ms", "CPU ms", "RSS MB", "runs/s"]
        if any(file["alone"]["energy_mj_a_run"] is not None for file in files):
            names.append("mJ")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for file in files:
        timing, alone = file["timing"], file["alone"]
        cells: dict[str, str | Text] = {
            "MB": f"{file['bytes'] / 1e6:.2f}",
            "ms": f"{timing['median_ms']:.2f}",
            "ratio": f"{file['of_reference']:.2f}",
            "noise": Text(f"{timing['noise']:.1%}", "" if timing["noise"] <= AGREE else "yellow"),
            "p90": _optional(timing["p90_ms"]),
            "p99": _optional(timing["p99_ms"]),
            "load": f"{alone['load_ms']:.0f}",
            "first": f"{alone['first_run_ms']:.1f}",
            "CPU": f"{alone['cpu_ms_a_run']:.1f}",
            "RSS": f"{alone['peak_rss_bytes'] / 1e6:.0f}",
            "runs/s": f"{file['runs_a_second']:.0f}",
            "mJ": _optional(alone["energy_mj_a_run"]),
        }
        table.add_row(file["file"].removeprefix(f"{role}."), *(cells[name.split()[0]] for name in names))
    few = [file for file in files if file["timing"]["p90_ms"] is None]
    table.caption = f"p90 needs {P90_SAMPLES} runs" if few else None
    return table


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
