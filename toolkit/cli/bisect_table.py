"""Prints a BisectReport as a table, on 80 or more columns."""

from collections import Counter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.bisect.result import BisectReport
from toolkit.metrics.error import LARGEST

_SHOWN = 10
_WIDE = 110
_NAMED = 24


def print_report(report: BisectReport, console: Console) -> None:
    """Print the layers that introduce most error, the tensors that were not matched, and the path of `repro.py`."""
    random = " (random weights)" if report.weights.is_random else ""
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
    """Return each kind of operator once, after its count if there are several."""
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in Counter(kinds).items())


def _error(value: float) -> str:
    return "not finite" if value >= LARGEST else f"{value:.1e}" if value else "0"
