"""Prints the results of benchmarks as tables."""

from collections.abc import Sequence
from itertools import zip_longest

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends.session import RuntimeFacts
from backends.timing import P90_SAMPLES, STEADY
from graphs.onnx.modules import folded
from toolkit.bench.regressions import changes, differences
from toolkit.bench.result import BenchResult, Figures, FileProfile, FileResult, PeerResult

_ROWS = 8


def print_profile(profiles: Sequence[FileProfile], console: Console) -> None:
    """Print a table for each file: kinds of operators and modules of the source, the longest times first."""
    for profile in profiles:
        console.print(Text(f"{profile.file}: operators, as {profile.runtime} measures them", "bold"))
        if profile.by_kind:
            console.print(_profile_table(profile))
        if profile.note:
            console.print(Text(f"{profile.file}: {profile.note}", "yellow"))


def _profile_table(profile: FileProfile) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, justify in (("kind", "left"), ("n", "right"), ("ms", "right"), ("", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    kinds = [(one.kind, one.count, one.total_ms, one.share) for one in profile.by_kind]
    if len(kinds) > _ROWS:
        kinds, rest = kinds[: _ROWS - 1], kinds[_ROWS - 1 :]
        counts, times, shares = zip(*(one[1:] for one in rest), strict=True)
        kinds.append((f"{len(rest)} more kinds", sum(counts), sum(times), sum(shares)))
    modules = folded({one.module: one.total_ms for one in profile.by_module}, _ROWS)
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


_WIDE = 110


def print_result(result: BenchResult, console: Console) -> None:
    """Print the tables and notes of each role, the profiles of operators, and the machine and its runtimes."""
    machine = result.machine
    for role, reference in result.reference.items():
        files = [file for file in result.files if file.role == role]
        peers = [peer for peer in result.peers if peer.role == role]
        console.print(
            Text(f"{role}: median of interleaved rounds, {result.threads} threads, ratios to {reference}", "bold")
        )
        console.print(_table(role, files, peers, console.width))
        _print_notes(peers, console)
        _print_doubts(files, peers, console)
        console.print(_throughput(role, files))
        _print_batch_notes(files, console)
    print_profile(result.profile, console)
    timed = [*(file.figures for file in result.files), *filter(None, (peer.figures for peer in result.peers))]
    used = {str(one.in_use["runtime"]): one.in_use for one in timed}
    console.print(
        Text(
            f"{machine}; " + ", ".join(f"{runtime} {_with(used[runtime])}" for runtime in used),
            "dim",
        )
    )
    for note in result.notes:
        console.print(Text(f"note: {note}", "dim"))


def print_against(before: BenchResult, after: BenchResult, console: Console) -> None:
    """Print how the conditions of two runs differ, then the figures that changed by more than the noise."""
    for line in differences(before, after):
        console.print(Text(f"not the same: {line}", "yellow"))
    found = changes(before, after)
    outside = [change for change in found if change.outside_noise]
    for change in outside:
        style = "red" if change.worse else "green"
        console.print(
            Text(
                f"{change.file}, {change.figure}: {change.before:.3g} then, {change.after:.3g} now "
                f"({change.ratio - 1:+.0%}, noise {change.noise:.0%})",
                style,
            )
        )
    console.print(Text(f"{len(found) - len(outside)} of {len(found)} figures are within the noise", "bold"))


def _table(role: str, files: Sequence[FileResult], peers: Sequence[PeerResult], width: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("file", no_wrap=wide, overflow="fold")
    names = ["MB", "ms", "ratio", "p90", "load\nms", "first\nms", "RSS\nMB"]
    if wide:
        names = ["MB", "ms", "ratio", "noise", "p90", "p99", "load ms", "first ms", "CPU ms", "RSS MB"]
        if any(file.alone.energy_mj_a_run is not None for file in files):
            names.append("mJ")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for file in files:
        table.add_row(file.name.removeprefix(f"{role}."), *_cells(file.figures, names))
    measured = [figures for peer in peers if (figures := peer.figures) is not None]
    if measured:
        table.add_section()
    for figures in measured:
        table.add_row(Text(figures.name, "italic"), *_cells(figures, names))
    few = [file for file in files if file.timing.p90_ms is None]
    table.caption = f"p90 needs {P90_SAMPLES} runs" if few else None
    return table


def _cells(figures: Figures, names: Sequence[str]) -> list[str | Text]:
    timing, alone = figures.timing, figures.alone
    cells: dict[str, str | Text] = {
        "MB": f"{figures.bytes / 1e6:.2f}",
        "ms": f"{timing.median_ms:.2f}",
        "ratio": f"{figures.of_reference:.2f}",
        "noise": Text(f"{timing.noise:.1%}", "" if timing.noise <= STEADY else "yellow"),
        "p90": _optional(timing.p90_ms),
        "p99": _optional(timing.p99_ms),
        "load": f"{alone.load_ms:.0f}",
        "first": f"{alone.first_run_ms:.1f}",
        "CPU": f"{alone.cpu_ms_a_run:.1f}",
        "RSS": f"{alone.peak_rss_bytes / 1e6:.0f}",
        "mJ": _optional(alone.energy_mj_a_run),
    }
    return [cells[name.split()[0]] for name in names]


def _throughput(role: str, files: Sequence[FileResult]) -> Table:
    """Return the table of images a second: one after the other, several at once, and in streams of one thread each."""
    table = Table(
        title="throughput, images a second", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("file", overflow="fold")
    batches = list(dict.fromkeys(one.batch for file in files for one in file.batches))
    streams = list(dict.fromkeys(one.streams for file in files for one in file.streams))
    for batch in batches:
        table.add_column(f"batch {batch}", justify="right")
    for count in streams:
        table.add_column("1 stream" if count == 1 else f"{count} streams", justify="right")
    for file in files:
        by_batch = {one.batch: one.images_a_second for one in file.batches}
        by_streams = {one.streams: one.runs_a_second for one in file.streams}
        cells = [*(by_batch.get(batch) for batch in batches), *(by_streams.get(count) for count in streams)]
        table.add_row(
            file.name.removeprefix(f"{role}."),
            *("" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in cells),
        )
    return table


def _print_batch_notes(files: Sequence[FileResult], console: Console) -> None:
    notes: dict[tuple[int, str], list[str]] = {}
    for file in files:
        for one in file.batches:
            if one.note:
                notes.setdefault((one.batch, one.note), []).append(file.name)
    for (batch, note), names in notes.items():
        console.print(Text(f"batch {batch}, {', '.join(names)}: {note}", "yellow"))


def _print_notes(peers: Sequence[PeerResult], console: Console) -> None:
    """Print how the peers were made, then the peers that have no figures, and why."""
    for failed in (False, True):
        notes: dict[str, list[str]] = {}
        for peer in peers:
            if (peer.timing is None) == failed:
                notes.setdefault(peer.note, []).append(peer.name)
        for note, names in notes.items():
            console.print(Text(f"{'; '.join(names)}: {note}", "yellow" if failed else "dim"))


def _print_doubts(files: Sequence[FileResult], peers: Sequence[PeerResult], console: Console) -> None:
    timed = [*(file.figures for file in files), *filter(None, (peer.figures for peer in peers))]
    moving = {one.name: one.timing for one in timed if not one.timing.settled}
    if moving:
        worst = max(moving, key=lambda name: moving[name].noise)
        runs = moving[worst].runs
        line = f"not steady after {runs} runs, the medians of the last windows are {moving[worst].noise:.0%} apart"
        others = f", and {len(moving) - 1} of the others less so" if len(moving) > 1 else ""
        console.print(Text(f"{worst}: {line}{others}; a longer --time-limit or a quieter machine helps", "yellow"))
    for one in timed:
        if one.in_use.get("delegated_parts") == 0:
            console.print(Text(f"{one.name}: no delegate took any of it", "yellow"))


def _with(in_use: RuntimeFacts) -> str:
    """Return a runtime's version and the providers, delegate or instruction set that it runs on."""
    providers = in_use.get("providers")
    names = providers if isinstance(providers, list) else [in_use.get("delegate") or in_use.get("cpu_capability")]
    return f"{in_use['version']} ({', '.join(str(name) for name in names if name)})"


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
