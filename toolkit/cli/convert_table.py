"""The output of `toolkit convert`: a row for each file, made or not, and a line for each reason and warning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from toolkit.cli.console import print_artifacts, warn_if_random
from toolkit.convert.weights import shown_shares

if TYPE_CHECKING:
    from toolkit.bench.speed import Speed
    from toolkit.convert.outcome import Conversion, FileOutcome

OVER, NOT_MADE = 1, 2


def exit_code(conversion: "Conversion") -> int:
    """Return 2 if a file was not made, 1 if a file is over its tolerance, else 0."""
    return NOT_MADE if conversion.failed else OVER if conversion.over else 0


def print_conversion(conversion: "Conversion", speeds: Sequence["Speed"]) -> None:
    """Print the table of files to stdout; reasons, warnings and notes to stderr."""
    warn_if_random(conversion.bundle)
    for note in conversion.notes:
        click.echo(f"note: {note}", err=True)
    for one in conversion.outcomes:
        if one.in_float:
            why = f"in float32, because LiteRT does not load or run it in {one.precision}"
            click.echo(f"note: {one.file}: {why}: {', '.join(one.in_float)}", err=True)
        if one.mostly_float:
            line = f"{one.file}: most of its weights stay in float32: {', '.join(one.mostly_float)}"
            click.secho(f"warning: {line}", fg="yellow", err=True)
    for speed in (speed for speed in speeds if speed.slower):
        click.secho(f"warning: {_slower(speed)}", fg="yellow", err=True)
    for one in conversion.over:
        for check in one.over:
            click.secho(f"warning: {one.file}: {check}", fg="yellow", err=True)
    print_artifacts(
        conversion.bundle,
        {
            "weights": {one.file: shown_shares(one.weights) for one in conversion.outcomes if one.weights},
            "time": {speed.file: f"{speed.ratio:.2f}x" for speed in speeds},
            "outcome": {one.file: _outcome(one) for one in conversion.outcomes},
        },
        [(one.file, one.format, one.precision) for one in conversion.outcomes if not one.made],
    )
    for one in conversion.outcomes:
        if one.operations and one.precision != "fp32":
            click.echo(f"{one.file}: multiplies in {shown_shares(one.operations)}")
    if speeds:
        click.echo("time: over the float32 file of the same runtime, side by side on this machine")
    reasons: dict[tuple[bool, str], list[str]] = {}
    there = {artifact.file for artifact in conversion.bundle.artifacts}
    for one in (one for one in conversion.outcomes if not one.made):
        stays = " (the file of an earlier conversion stays)" if one.file in there else ""
        why = str(one.why).removeprefix(f"{one.file}: ")
        reasons.setdefault((one.impossible, why), []).append(f"{one.file}{stays}")
    for (impossible, why), files in reasons.items():
        line = f"not made: {', '.join(files)}: {why}"
        click.secho(f"note: {line}" if impossible else f"error: {line}", fg=None if impossible else "red", err=True)
    if conversion.advisory is not None:
        click.echo(conversion.advisory, err=True)


def _outcome(one: "FileOutcome") -> str:
    if not one.made:
        return "impossible" if one.impossible else "failed"
    outcome = "over its tolerance" if one.over else "made"
    return outcome if one.way is None else f"{outcome} {one.way}"


def _slower(speed: "Speed") -> str:
    said = f"{speed.file} is slower than float32: {speed.ratio:.2f}x the time of {speed.over}"
    if speed.blame:
        said += "; what takes longer: " + ", ".join(f"{kind} (+{ms:.1f} ms)" for kind, ms in speed.blame)
    return said
