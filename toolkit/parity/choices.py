"""Judges what is chosen by the largest of several numbers: the next token, the patch that a query looks at most."""

from collections.abc import Callable, Mapping
from typing import Any

from backends.tensor import Array
from toolkit.parity.sample import Sample
from toolkit.parity.vectors import NOTHING_REAL


class ChoiceJudge:
    """Reads one output, (..., N, choices).

    Its number, of real images, is called as `number` says: the share of rows whose largest value is another one.
    counted: which rows of a sample count, as numpy takes them, by default all.
    """

    def __init__(self, number: str, output: str, counted: Callable[[Sample], Any] = lambda sample: slice(None)) -> None:
        self._number = number
        self._output = output
        self._counted = counted
        self._rows = self._changed = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        if sample.family != "real":
            return
        sides = (side[self._output] for side in (got, expected))
        ours, theirs = (side.reshape(-1, side.shape[-1])[self._counted(sample)].argmax(axis=1) for side in sides)
        self._rows += len(ours)
        self._changed += int((ours != theirs).sum())

    def numbers(self) -> dict[str, float]:
        return {self._number: self._changed / self._rows} if self._rows else {}

    def uncounted(self) -> dict[str, str]:
        return {} if self._rows else {self._number: NOTHING_REAL}

    def details(self) -> dict[str, Any]:
        return {"choices": self._rows, "changed": self._changed}
