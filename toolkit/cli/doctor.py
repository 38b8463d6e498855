"""The command `toolkit doctor`."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.doctor.diagnosis import Diagnosis


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object in one line.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Try everything that the commands need on this machine, and say what to do about the rest.

    Tries every runtime on the shipped model, in every precision that has a file, and times them side by side; imports
    the optional packages; converts a small graph; and holds the disk of ./build and the free memory against what the
    models of `toolkit models` need. Takes some seconds, and nothing is installed or changed.

    A part "works"; or is "missing": it was never installed, and costs only the commands that need it; or is "broken":
    it is there and fails. Below the tables is one line of advice for each part that does not work.

    Exit codes: 0 if `toolkit run` works with at least one runtime and no part is broken, also where optional parts are
    missing; 1 if a part is broken or no runtime works.

    \b
    Example:
      toolkit doctor
    """
    from pathlib import Path

    from toolkit.cli.console import working

    with working("doctor") as progress:
        progress.step("loading the checks")
        from toolkit.doctor.diagnosis import diagnose

        found = diagnose(Path("build"), progress.step)
    if as_json:
        click.echo(json.dumps(found.to_json(), allow_nan=False))
    else:
        _print(found)
    ctx.exit(found.exit_code)


def _print(found: "Diagnosis") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    machine = found.machine
    console.print(Text(f"{machine}; {machine.memory_gb} GB of memory"))
    toolkit = machine.versions.get("seal-toolkit", "not installed")
    console.print(Text(f"seal-toolkit {toolkit}, Python {machine.python}, {machine.system}"))
    console.print(_parts(found))
    if found.trials:
        console.print(_trials(found))
        if machine.is_busy:
            console.print(Text("the machine is busy: these times are too long, and uneven", "yellow"))
        if found.untried:
            names = ", ".join(found.untried)
            console.print(Text(f"not tried, because {found.shipped} ships without such a file: {names}", "dim"))
    if found.models:
        console.print(_models(found))
    advice = [check for check in found.checks if check.advice]
    console.print(Text("What to do:" if advice else "Everything works.", "bold"))
    for check in advice:
        console.print(Text(f"- {check.part}: {check.advice}"), soft_wrap=True)


_STYLES = {"works": "green", "missing": "yellow", "broken": "bold red"}


def _table(*columns: str, left: int) -> "Table":
    """Return an empty table. The first `left` columns hold text, the others figures."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < left else "right", overflow="fold")
    return table


def _parts(found: "Diagnosis") -> "Table":
    from rich.text import Text

    table = _table("part", "state", "", left=3)
    for check in found.checks:
        table.add_row(check.part, Text(check.state, _STYLES[check.state]), Text(check.detail))
    return table


def _trials(found: "Diagnosis") -> "Table":
    from rich.text import Text

    table = _table("runtime", "precision", "state", f"ms, {found.shipped}", left=3)
    times = [trial.median_ms for trial in found.trials if trial.median_ms is not None]
    for trial in found.trials:
        fastest = trial.median_ms is not None and trial.median_ms == min(times)
        milliseconds = "" if trial.median_ms is None else f"{trial.median_ms:.2f}" + (" fastest" if fastest else "")
        state = Text(trial.state + (f": {trial.why}" if trial.why else ""), _STYLES[trial.state])
        table.add_row(trial.backend, trial.precision, state, milliseconds)
    return table


def _models(found: "Diagnosis") -> "Table":
    from rich.text import Text

    table = _table("to export and convert, GB", "weights", "disk", "memory", left=1)
    free = {"disk_bytes": found.free_disk_bytes, "memory_bytes": found.free_memory_bytes}
    for model in found.models:
        cells = [
            Text(f"{getattr(model, key) / 1e9:.2f}", "" if getattr(model, key) <= most else "yellow")
            for key, most in free.items()
        ]
        table.add_row(model.model, f"{model.weight_bytes / 1e9:.2f}", *cells)
    table.add_section()
    table.add_row("free here", "", *(f"{most / 1e9:.2f}" for most in free.values()))
    return table
