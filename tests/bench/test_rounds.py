"""Rows that are timed together: groups that fit memory, failures, openings, and what is kept."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from backends.errors import NotAvailable
from backends.timing import Clock, Rounds, Run
from toolkit.bench import rounds
from toolkit.bench.rounds import OpenRow, ResumeLog, Row, measure_rows

FEW = Rounds(0, warm_ups=0, least=4, until_steady=False)


class Rows:
    """Rows whose times are made up, and a record of which are open together."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.together: list[set[str]] = []

    def row(self, name: str, seconds: float = 1.0, size: int = 0, fails: bool = False) -> Row:
        @contextmanager
        def opened() -> Iterator[OpenRow]:
            if fails:
                raise NotAvailable(f"{name} is not here")
            self.open.add(name)
            yield OpenRow(lambda: self.run(name, seconds), {"threads": 1})
            self.open.remove(name)

        return Row(name, opened, size, f"sha256 of {name}")

    def run(self, name: str, seconds: float) -> float:
        assert name in self.open
        self.together.append(set(self.open))
        return seconds


def said(run: Run, clock: Clock) -> float:
    return float(str(run()))


def test_ratios_are_over_the_reference_and_its_own_is_one() -> None:
    rows = Rows()
    found = measure_rows([rows.row("a", 2.0), rows.row("b", 1.0)], FEW, "b", sample=said)
    assert {name: one.of_reference for name, one in found.measured.items()} == {"a": 2.0, "b": 1.0}
    assert found.measured["a"].ratio.low == found.measured["a"].ratio.high == 2.0
    assert (found.measured["a"].timing.median_ms, found.measured["a"].timing.runs) == (2000.0, 4)
    assert found.measured["a"].facts == {"threads": 1}
    assert not rows.open


def test_rows_that_do_not_fit_memory_are_timed_in_groups_beside_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "free_bytes", lambda: 100)
    rows = Rows()
    found = measure_rows([rows.row(name, size=20) for name in "abc"], FEW, "b", sample=said)
    assert found.groups == 2
    assert {name: one.group for name, one in found.measured.items()} == {"b": 1, "a": 1, "c": 2}
    assert {frozenset(one) for one in rows.together} == {frozenset("ab"), frozenset("bc")}
    assert found.ratio("a", over="b").median == 1
    with pytest.raises(ValueError, match="a and c were timed in different groups"):
        found.ratio("a", over="c")


def test_a_row_too_large_even_beside_the_reference_is_an_error_or_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "free_bytes", lambda: 100)
    rows = Rows()
    pair = [rows.row("a", size=20), rows.row("large", size=70)]
    with pytest.raises(NotAvailable, match=r"large: it and its reference a have .* expected at most 80%"):
        measure_rows(pair, FEW, sample=said)
    found = measure_rows(pair, FEW, may_fail=["large"], sample=said)
    assert (set(found.measured), set(found.failed)) == ({"a"}, {"large"})


def test_a_row_that_does_not_open_is_an_error_or_a_reason() -> None:
    rows = Rows()
    pair = [rows.row("a"), rows.row("b", fails=True)]
    with pytest.raises(NotAvailable, match="b is not here"):
        measure_rows(pair, FEW, sample=said)
    found = measure_rows(pair, FEW, may_fail=["b"], sample=said)
    assert (set(found.measured), found.failed) == ({"a"}, {"b": "b is not here"})


def test_several_openings_share_the_rounds() -> None:
    rows, opened = Rows(), list[str]()
    one = rows.row("a")

    def count() -> AbstractContextManager[OpenRow]:
        opened.append("a")
        return one.open()

    found = measure_rows([Row("a", count)], FEW, openings=2, sample=said)
    assert (len(opened), found.measured["a"].timing.runs) == (2, 4)


def test_a_group_that_is_kept_is_not_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    first = measure_rows([Rows().row("a"), Rows().row("b", 2.0)], FEW, log=ResumeLog(path), sample=said)
    assert path.is_file()
    again = [Rows().row("a", fails=True), Rows().row("b", fails=True)]
    assert measure_rows(again, FEW, log=ResumeLog(path), sample=said) == first
    with pytest.raises(NotAvailable):
        measure_rows(again[::-1][:1], FEW, log=ResumeLog(path), sample=said)
