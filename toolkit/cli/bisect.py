"""A BisectReport as a person reads it, on 80 columns and up."""

import json
from collections import Counter
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.bisect.report import BisectReport
from toolkit.cli.console import Target
from toolkit.metrics.noise import LARGEST

_SHOWN = 10

_WIDE = 110

_NAMED = 24


def print_report(report: BisectReport, console: Console) -> None:
    """The layers that introduce most, what was not matched and why, and where the repro is."""
    random = " (random weights)" if report.weights["origin"] == "random" else ""
    console.print(Text(f"{report.model}{random}: {report.candidate} against {report.reference}", "bold"))
    console.print(Text(f"over {len(report.samples)} samples: {'; '.join(report.samples)}", "dim"))
    console.print(_table(report, console.width >= _WIDE))
    if (more := len(report.layers) - _SHOWN) > 0:
        console.print(Text(f"and {more} layers more that introduce less", "dim"))
    last = report.layers[-1]
    console.print(f"At the end, {last.tensor} inherits {_error(last.inherited)}.")
    why = Counter(one.why for one in report.unmatched)
    for one in report.unmatched:
        if why[one.why] == 1:
            console.print(Text(f"not matched: {one.tensor}: {one.why}", "dim"))
    for reason, count in why.items():
        if count > 1:
            names = [one.tensor for one in report.unmatched if one.why == reason]
            rest = f" and {count - _NAMED} more, which --json lists" if count > _NAMED else ""
            console.print(Text(f"not matched, {count}: {reason}: {', '.join(names[:_NAMED])}{rest}", "dim"))
    if not any(layer.module for layer in report.layers):
        console.print(Text("modules of the source: not known, the reference states no scopes", "dim"))
    console.print(f"The smallest part that shows the first: python {report.repro}/repro.py", soft_wrap=True)


def _table(report: BisectReport, wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("introduced", justify="right", no_wrap=True)
    table.add_column("inherited", justify="right", no_wrap=True)
    table.add_column("tensor", overflow="fold")
    table.add_column("ONNX node", overflow="fold")
    table.add_column("operators", overflow="fold")
    table.add_column("module", overflow="fold")
    for layer in report.ranked()[:_SHOWN]:
        table.add_row(
            _error(layer.introduced),
            _error(layer.inherited),
            layer.tensor,
            f"{layer.onnx_node} ({layer.onnx_op})" if wide else layer.onnx_op,
            _operators(layer.tflite_ops),
            layer.module,
        )
    return table


def _operators(kinds: tuple[str, ...]) -> str:
    """Each kind once, with how many there are."""
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in Counter(kinds).items())


def _error(value: float) -> str:
    return "not finite" if value >= LARGEST else f"{value:.1e}" if value else "0"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--candidate", required=True, metavar="FILE", help="The file of BUNDLE to look into, ONNX or TFLite.")
@click.option("--before", type=click.Path(path_type=Path), metavar="FILE", help="An ONNX file, for the float32 one.")
@click.option("--pass", "around_pass", metavar="NAME", help="Compare the graph before and after this pass instead.")
@click.option("--repro", type=click.Path(path_type=Path), metavar="DIR", help="Default: beside BUNDLE.")
@click.option("--json", "out", type=Target(), metavar="FILE", help="Write every layer to FILE.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
def bisect(
    bundle: Path,
    candidate: str,
    before: Path | None,
    around_pass: str | None,
    repro: Path | None,
    out: Path | None,
    threads: int | None,
) -> None:
    """Compare a file of BUNDLE with the float32 graph layer by layer, and say which one introduces an error.

    Inherited is the error of a tensor as the file comes to it; introduced, that of one layer alone, given the float32
    graph's own inputs: both as noise over signal. The layer that introduces most ends in a folder of its own, as the
    smallest part of both files, with its inputs and a script that shows the difference.

    With --pass, --candidate is a float32 ONNX file, and the graphs just before and just after that pass on the way to
    it, or from it to TFLite, are compared.

    \b
    Example:
      toolkit bisect build/pocketseal --candidate detector.int8.tflite
      toolkit bisect build/pocketseal --candidate detector.onnx --pass fold_affine
    """
    from rich.console import Console

    from backends.atomic import replacing
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from toolkit.cli.console import warn_if_random, working

    if before is not None and around_pass is not None:
        raise click.UsageError("--before and --pass both name a reference: give one", click.get_current_context())
    opened = Bundle.open(bundle)
    warn_if_random(opened)
    with working(f"bisect {candidate}") as progress:
        progress.step("loading the runtimes")
        from toolkit.bisect.bundle import bisect_bundle

        report = bisect_bundle(
            opened, candidate, before, around_pass, repro, threads or default_threads(), progress.step
        )
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print_report(report, Console(highlight=False))
