"""Prints a ParityReport as tables, on 80 or more columns."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends.precision import find_recipe
from toolkit.convert.weights import is_as_named, shown_shares
from toolkit.metrics.error import OutputMetrics
from toolkit.metrics.limit import SHARES
from toolkit.models.kind import ModelKind, find_kind
from toolkit.parity.report import EndToEndReport, FileReport, Judged, ParityReport, RoleReport

# A console of this many columns has room for every column of the table.
_WIDE = 110
_ERROR_COLUMNS = ("relative_l2", "signal_to_noise_db", "max_abs")
_WIDE_ERROR_COLUMNS = (*_ERROR_COLUMNS, "mean_abs", "cosine")
_TITLES = {
    "relative_l2": "error",
    "signal_to_noise_db": "SNR dB",
    "max_abs": "max abs",
    "mean_abs": "mean abs",
    "bits_flipped": "bits\nflipped",
    "accuracy_loss": "bits\nlost",
    "verdicts_changed": "verdicts\nchanged",
    "channel_changed": "channel\nchanged",
    "mean_cosine": "mean\ncosine",
    "lost": "vectors\nlost",
    "real_error": "error,\nreal",
    "tokens_changed": "tokens\nchanged",
    "captions_changed": "captions\nchanged",
    "attention_changed": "attention\nchanged",
    "labels_changed": "labels\nchanged",
    "characters_changed": "characters\nchanged",
    "strings_changed": "strings\nchanged",
    "boxes_changed": "boxes\nchanged",
    "masks_changed": "masks\nchanged",
    "mean_iou": "mean\nIoU",
    "psnr_db": "PSNR dB",
    "latent_max_abs": "latents\nmax abs",
    "latent_error": "latents\nerror",
}
_DECIBELS = ("signal_to_noise_db", "psnr_db")
_COSINES = ("cosine", "mean_cosine", "mean_iou")
_NARROW_TASK_COLUMNS = 3


def print_report(report: ParityReport, console: Console) -> None:
    """Print a table with failures and notes for each role and each end-to-end case, then the verdict."""
    kind = find_kind(report.kind)
    for role in report.roles:
        if not role.files:
            console.print(Text(f"{role.role}: {role.reference.file} alone, nothing to compare it with", "bold"))
            continue
        samples = ", ".join(f"{count} {family}" for family, count in role.samples.items())
        console.print(
            Text(f"{role.role}: every file against {role.reference.file}, on {samples or 'no'} samples", style="bold")
        )
        console.print(_table(role, console.width))
        console.print(_types_table(role))
        for file in role.files:
            for line in _lines(file, kind):
                console.print(line)
        for note in _notes(role.files, role.outside_domain):
            console.print(Text(note, style="dim"))
    for whole in report.wholes:
        print_whole(whole, console)
    for mending in report.mendings:
        console.print(Text(f"at import: {mending}", style="dim"))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    judged = [*(file for role in report.roles for file in role.files), *(r for w in report.wholes for r in w.runs)]
    passed, total = sum(one.passed for one in judged), len(judged)
    console.print(
        Text(
            f"{report.model}: {passed} of {total} {'comparisons' if report.wholes else 'files'} pass"
            if total
            else f"{report.model}: nothing was compared",
            style="bold green" if report.passed else "bold red",
        )
    )


def print_whole(whole: EndToEndReport, console: Console) -> None:
    """Print a table of an end-to-end case in every format and precision, with its failures."""
    samples = ", ".join(f"{count} {family}" for family, count in whole.samples.items())
    title = f"{whole.name}: {', '.join(whole.graphs)} together, against {whole.reference} fp32, on {samples} samples"
    console.print(Text(title, style="bold"))
    numbers = list(dict.fromkeys(name for run in whole.runs for name in run.total.numbers))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("files", "output"):
        table.add_column(heading, overflow="fold")
    for name in (*_ERROR_COLUMNS, *numbers):
        table.add_column(_TITLES.get(name, name.replace("_", " ")), justify="right", no_wrap=True)
    table.add_column("")
    for run in whole.runs:
        failed = {(check.where, check.number) for check in run.failures}
        for i, (output, error) in enumerate(run.total.outputs.items()):
            table.add_row(
                f"{run.format} {run.precision}" if i == 0 else "",
                output,
                *(_cell(n, _error(error, n), (output, n) in failed) for n in _ERROR_COLUMNS),
                *(_cell(n, run.total.numbers.get(n) if i == 0 else None, ("", n) in failed) for n in numbers),
                (Text("pass", "green") if run.passed else Text("FAIL", "bold red")) if i == 0 else "",
            )
    console.print(table)
    for run in whole.runs:
        for check in run.failures:
            console.print(Text(f"FAIL {whole.name}, {run.format} {run.precision}: {check}", "red"))
    for note in _notes(whole.runs, 0):
        console.print(Text(note, style="dim"))


def _table(role: RoleReport, width: int) -> Table:
    wide = width >= _WIDE
    errors = _WIDE_ERROR_COLUMNS if wide else _ERROR_COLUMNS
    task = list(dict.fromkeys(name for file in role.files if file.total for name in file.total.numbers))
    if not wide:
        task = task[:_NARROW_TASK_COLUMNS]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("file", no_wrap=wide, overflow="fold")
    if several := any(file.total and len(file.total.outputs) > 1 for file in role.files):
        table.add_column("output", overflow="fold")
    if wide:
        table.add_column("MB", justify="right")
    for name in (*errors, *task):
        table.add_column(_TITLES.get(name, name.replace("_", " ")), justify="right", no_wrap=True)
    table.add_column("")
    for file in role.files:
        failed = {(check.where, check.number) for check in file.failures}
        verdict = Text("pass", "green") if file.passed else Text("FAIL", "bold red")
        name = file.name.removeprefix(f"{role.role}.")
        size = [f"{file.artifact.bytes / 1e6:.2f}"] if wide else []
        if file.total is None or not file.total.outputs:
            blank = [""] * (len(errors) + len(task) + several)
            table.add_row(name, *blank[:several], *size, *blank[several:], verdict)
            continue
        for i, (output, error) in enumerate(file.total.outputs.items()):
            first = i == 0
            table.add_row(
                name if first else "",
                *([output] if several else []),
                *(size if first or not wide else [""]),
                *(_cell(n, _error(error, n), (output, n) in failed) for n in errors),
                *(_cell(n, file.total.numbers.get(n) if first else None, ("", n) in failed) for n in task),
                verdict if first else "",
            )
        for cells in _step_rows(file, errors, task, several, wide):
            table.add_row(*cells, style="dim")
    return table


def _types_table(role: RoleReport) -> Table:
    """Return a table of the number types of every file; a file that keeps most weights in float32 is marked."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("file", "weights stored in", "multiplies in"):
        table.add_column(heading, overflow="fold")
    precisions = {file.artifact.file: file.artifact.precision for file in role.files}
    for file, types in role.number_types.items():
        recipe = find_recipe(precisions.get(file, "fp32"))
        cells = (file.removeprefix(f"{role.role}."), shown_shares(types.weights), shown_shares(types.operations))
        table.add_row(*cells, style=None if is_as_named(recipe, types.weights) else "yellow")
    return table


def _step_rows(
    file: FileReport, errors: tuple[str, ...], task: list[str], several: bool, wide: bool
) -> Iterator[list[Text | str]]:
    if file.step is None:
        return
    for i, (output, error) in enumerate(file.step.outputs.items()):
        first = i == 0
        yield [
            f"  from {file.step.against.removeprefix(file.artifact.role + '.')}" if first else "",
            *([output] if several else []),
            *([""] if wide else []),
            *(_cell(n, _error(error, n), False) for n in errors),
            *(_cell(n, file.step.numbers.get(n) if first else None, False) for n in task),
            "",
        ]


def _error(error: OutputMetrics, name: str) -> float | None:
    value: float | None = getattr(error, name)
    return value


def _cell(name: str, value: float | None, failed: bool) -> Text:
    if value is None:
        shown = "same" if name == "signal_to_noise_db" and not failed else ""
    elif name in SHARES:
        shown = f"{value:.2%}" if value else "0"
    elif name in _DECIBELS:
        shown = f"{value:.1f}"
    elif name in _COSINES:
        shown = f"{value:.6f}"
    else:
        shown = f"{value:.1e}" if value else "0"
    return Text(shown, "bold red" if failed else "")


def _lines(file: FileReport, kind: ModelKind) -> Iterator[Text]:
    for check in file.failures:
        blame = ""
        if file.step is not None:
            blame = f"; the step from {file.step.against} alone {'passes' if file.step_passed else 'fails too'}"
        yield Text(f"FAIL {file.name}: {check}{blame}", "red")
    if file.total is not None and (line := kind.details_line(file.total.details)):
        yield Text(f"{file.name}: {line}", "dim")


def _notes(judged: Sequence[Judged], outside_domain: int) -> Iterator[str]:
    unjudged: dict[str, list[str]] = {}
    for one in judged:
        for check in one.checks:
            if check.passed is None:
                names = unjudged.setdefault(check.note, [])
                if check.number not in names:
                    names.append(check.number)
    for note, names in unjudged.items():
        yield f"{note}: {', '.join(name.replace('_', ' ') for name in names)}"
    if outside_domain:
        yield f"{outside_domain} synthetic samples left out: the reference itself is not finite on them"
