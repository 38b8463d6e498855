"""The timing engine: rows are opened together and timed in the same rounds; a ResumeLog keeps the measurements."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.bundle import Progress
from backends.errors import InvalidInput, NotAvailable, ToolkitError, one_line
from backends.machine import free_bytes
from backends.timing import Clock, Quartiles, Rounds, Run, Timing, time_rounds

# Share of free memory for open files together. A runtime keeps a packed copy of the weights beside the file.
_SHARE = 0.4
# Share of free memory for a file and its reference, which must be open together for a ratio.
_PAIR_SHARE = 0.8


@dataclass(frozen=True)
class OpenRow:
    """An opened row: the function to time, and facts about it as JSON values, which go into the result."""

    run: Run
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A function to time, with the context manager that prepares it. name: shown in tables; unique in a measurement.

    open: prepares the row and releases it at the end of the block. bytes: the size of the files that it opens, to
    estimate memory. identity: such as the file's sha256; a kept measurement of another identity is not used.
    """

    name: str
    open: Callable[[], AbstractContextManager[OpenRow]]
    bytes: int = 0
    identity: str = ""


@dataclass(frozen=True)
class RowTiming:
    """The measurement of one row. group: the number of the group of rows in which it was timed, from 1.

    of_reference: its median over the reference's of the same group. ratio: quartiles over the rounds of its time over
    the reference's in the same round. Both are 1 for the reference itself. samples_ms: in the order of the rounds.
    """

    group: int
    timing: Timing
    of_reference: float
    ratio: Quartiles
    facts: dict[str, Any]
    samples_ms: tuple[float, ...]


@dataclass
class Measurement:
    """The measured rows by name, the reason by name for each row that failed, and the number of groups."""

    measured: dict[str, RowTiming] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    groups: int = 0

    def ratio(self, name: str, over: str) -> Quartiles:
        """Return the time of row `name` over that of row `over`. Raises ValueError for rows of two groups."""
        one, other = self.measured[name], self.measured[over]
        if one.group != other.group:
            raise ValueError(f"{name} and {over} were timed in different groups")
        return Quartiles.of_ratio(one.samples_ms, other.samples_ms)


def measure_rows(
    rows: Sequence[Row],
    rounds: Rounds,
    reference: str | None = None,
    progress: Progress = lambda step: None,
    may_fail: Collection[str] = (),
    log: "ResumeLog | None" = None,
    openings: int = 1,
    sample: Callable[[Run, Clock], float] | None = None,
) -> Measurement:
    """Time rows in the same rounds, in groups that fit memory, each group beside the reference.

    reference: the name of the row to which ratios refer; None for the first row. Its own figures are from the first
    group. The groups share the time limit.
    may_fail: names of rows that are left out, with the reason, if they do not open or run. log: groups that it holds
    are not measured again. openings: how often all rows are opened anew, each time for an equal share of the rounds and
    the time: the place of a runtime's memory is random and changes a file's time by several percent. sample: as in
    `time_rounds`.
    Raises the error of any other row that does not open or run; NotAvailable for a row that does not fit memory even
    alone with the reference.
    """
    log, found = ResumeLog() if log is None else log, Measurement()
    by_name = {row.name: row for row in rows}
    base = by_name[reference or rows[0].name]
    for row in by_name.values():
        try:
            _check_pair(row, base)
        except NotAvailable as error:
            if row.name not in may_fail:
                raise
            found.failed[row.name] = one_line(error)
    groups = list(_groups([row for name, row in by_name.items() if name not in found.failed], base))
    found.groups = len(groups)
    shared = replace(
        rounds,
        time_limit_s=rounds.time_limit_s / len(groups) / openings,
        least=-(-rounds.least // openings),
        most=None if rounds.most is None else -(-rounds.most // openings),
    )
    for number, group in enumerate(groups, 1):
        names = ", ".join(f"{row.name} {row.identity}" for row in group)

        def measure(group: list[Row] = group) -> dict[str, Any]:
            return _measure_group(group, shared, progress, may_fail, openings, sample)

        kept = log.once(f"rounds of {names}", measure)
        found.failed |= kept["failed"]
        samples: dict[str, list[float]] = kept["samples_ms"]
        medians = {name: Timing.of(values) for name, values in samples.items()}
        for name, timing in medians.items():
            if name not in found.measured:
                ratio = Quartiles.of_ratio(samples[name], samples[base.name])
                of_reference = timing.median_ms / medians[base.name].median_ms
                facts, values = kept["facts"][name], tuple(samples[name])
                found.measured[name] = RowTiming(number, timing, of_reference, ratio, facts, values)
    return found


def _measure_group(
    group: Sequence[Row],
    rounds: Rounds,
    progress: Progress,
    may_fail: Collection[str],
    openings: int,
    sample: Callable[[Run, Clock], float] | None,
) -> dict[str, Any]:
    """Return {"samples_ms", "facts", "failed"}, each by name: samples in the order of the rounds, facts, reasons."""
    failed: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    samples: dict[str, list[float]] = {row.name: [] for row in group}
    for opening in range(openings):
        with ExitStack() as stack:
            runs: dict[str, Run] = {}
            for row in group:
                if row.name in failed:
                    continue
                progress(f"opening {row.name}")
                try:
                    opened = stack.enter_context(row.open())
                    if sample is None:
                        opened.run()
                except ToolkitError as error:
                    if row.name not in may_fail:
                        raise
                    failed[row.name] = one_line(error)
                    continue
                runs[row.name], facts[row.name] = opened.run, opened.facts
            for name, values in time_rounds(runs, rounds, progress, sample=sample, seed=opening).items():
                samples[name] += values
    return {
        "samples_ms": {name: values for name, values in samples.items() if name not in failed},
        "facts": facts,
        "failed": failed,
    }


def fits_memory(nbytes: int) -> bool:
    """Return whether files of `nbytes` in total may be open together."""
    return nbytes <= _SHARE * free_bytes()


def _check_pair(row: Row, reference: Row) -> None:
    """Raise NotAvailable if a row and the reference alone do not fit memory."""
    free, need = free_bytes(), _bytes_of([row, reference])
    if need > _PAIR_SHARE * free:
        raise NotAvailable(
            f"{row.name}: it and its reference {reference.name} have {need / 1e9:.1f} GB; expected at most "
            f"{_PAIR_SHARE:.0%} of the {free / 1e9:.1f} GB of memory that is free"
        )


def _groups(rows: Sequence[Row], reference: Row) -> Iterator[list[Row]]:
    """Yield the rows in groups that fit memory; each begins with the reference and has another row if there is one."""
    group: list[Row] = []
    for row in rows:
        if row.name == reference.name:
            continue
        if group and not fits_memory(_bytes_of([*group, row, reference])):
            yield [reference, *group]
            group = []
        group.append(row)
    yield [reference, *group]


def _bytes_of(rows: Sequence[Row]) -> int:
    return sum({row.name: row.bytes for row in rows}.values())


class ResumeLog:
    """A file of measurements by name, one line of JSON each, with which an interrupted benchmark can continue.

    path: None to keep measurements only in memory. of: JSON values that all measurements depend on, such as versions,
    files and options; a file with other values is overwritten. Raises InvalidInput if the file cannot be read or
    written.
    """

    def __init__(self, path: Path | None = None, of: object = None) -> None:
        self.path = path
        self._found: dict[str, Any] = {}
        if path is None:
            return
        head = json.dumps(of, sort_keys=True)
        try:
            lines = path.read_bytes().split(b"\n") if path.is_file() else []
            if lines[:1] != [head.encode()]:
                path.write_text(head + "\n", encoding="utf-8")
                return
            # Text after the last line break is a line that was not written completely before the process ended.
            self._found = dict(map(json.loads, lines[1:-1]))
            path.write_bytes(b"\n".join(lines[:-1]) + b"\n")
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"{path}: cannot go on with what is kept there: {error}; remove it") from error

    def __len__(self) -> int:
        return len(self._found)

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the measurement kept under a name; without one, call `measure`, keep its JSON values, return them."""
        if name not in self._found:
            made = json.dumps(measure())
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(f"[{json.dumps(name)}, {made}]\n")
            self._found[name] = json.loads(made)
        return self._found[name]

    def close(self) -> None:
        """Remove the file, after all measurements are in a result."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
