"""Prints a Drift, the changes since a record was made, as tables, on 80 or more columns."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends.session import RuntimeFacts
from toolkit.records.drift import Drift, FileDrift


def print_drift(drift: Drift, console: Console) -> None:
    """Print how the two environments differ, a table of every role with a row for each output, and the verdict."""
    title = f"{drift.model}: every file against {drift.record}, recorded on {drift.before.date}"
    console.print(Text(title, "bold"))
    for line in drift.unlike:
        console.print(Text(f"not the same: {line}", "yellow"))
    for role in dict.fromkeys(file.role for file in drift.files):
        console.print(_table(role, [file for file in drift.files if file.role == role]))
    notes: dict[str, list[str]] = {}
    for file in drift.files:
        if file.note:
            notes.setdefault(file.note, []).append(file.file)
    for note, names in notes.items():
        console.print(Text(f"{', '.join(names)}: {note}", "dim"))
    for file in drift.files:
        for line in _changed(file):
            console.print(Text(f"CHANGED {file.file}: {line}", "red"))
    unmoved = sum(all(output.same == 1 for output in file.outputs.values()) for file in drift.files)
    failed = sum(not file.passed for file in drift.files)
    end = f"{failed} give other answers" if failed else "no answer changed"
    console.print(
        Text(
            f"{drift.model}: {unmoved} of {len(drift.files)} files give the same bits; {end}",
            "bold green" if drift.passed else "bold red",
        )
    )


def _table(role: str, files: Sequence[FileDrift]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(role, overflow="fold")
    table.add_column("output", overflow="fold")
    for name in ("same\nbits", "max abs", "relative\nL2", "answers\nchanged"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("then, now", overflow="fold")
    for file in files:
        for i, (name, output) in enumerate(file.outputs.items()):
            changed = sum(answer.changed for answer in file.answers.values())
            of = sum(answer.of for answer in file.answers.values())
            table.add_row(
                file.file.removeprefix(f"{role}.") if i == 0 else "",
                name,
                f"{output.same:.0%}",
                f"{output.max_abs:.1e}" if output.max_abs else "0",
                "" if output.relative_l2 is None else f"{output.relative_l2:.1e}" if output.relative_l2 else "0",
                Text(f"{changed} of {of}", "bold red" if changed else "") if file.answers and i == 0 else "",
                _runtimes(file.before, file.now) if i == 0 else "",
            )
    return table


def _runtimes(before: RuntimeFacts, now: RuntimeFacts) -> str:
    then, after = (str(used["version"]).partition("+")[0] for used in (before, now))
    return then if then == after else f"{then}, {after}"


def _changed(file: FileDrift) -> Iterator[str]:
    for name, answer in file.answers.items():
        if answer.changed:
            yield f"{answer.changed} of {answer.of} {name} changed"
    for name, output in file.outputs.items():
        if output.not_finite:
            yield f"{name}: {output.not_finite} values are finite on one side alone"
