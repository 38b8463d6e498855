"""Results that a graph finds, such as the boxes of a NonMaxSuppression.

Two files may find other numbers of them, and in another order.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Self

import numpy as np

from backends.artifact import FOUND, Artifact
from backends.tensor import Array, filler

# Of more pairs of rows, each row is compared with the row in the same place.
_MOST_PAIRS = 1 << 22
Outputs = Mapping[str, Array]


class FoundRows:
    """The outputs of a graph whose rows are found in the values of a run, with the axis along which the rows lie."""

    def __init__(self, axes: Mapping[str, int]) -> None:
        self._axes = axes

    @classmethod
    def of(cls, reference: Artifact) -> Self | None:
        """Return the outputs of a file with an axis of found results, or None if there are none."""
        axes = {b.spec.name: reference.open_axes(b.spec.name) for b in reference.outputs}
        found = {name: of_tensor.index(FOUND) for name, of_tensor in axes.items() if FOUND in of_tensor}
        return cls(found) if found else None

    def paired(self, got: Outputs, expected: Outputs) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return both sides with rows in the same places, as many on each side.

        Rows of outputs that have as many rows belong together. Each row is put beside the most similar row of the other
        side, and beside a row of fillers if there is none left. Rows of fillers at the end are left out: files with
        fixed sizes have them where nothing more was found.
        """
        ours, theirs = dict(got), dict(expected)
        for names in self._together(expected):
            sides = [[np.moveaxis(side[name], self._axes[name], 0) for name in names] for side in (got, expected)]
            one, other = (_without_fillers(side) for side in sides)
            places, wanted = _places(one, other), range(len(other[0]))
            count = max([len(wanted), *(place + 1 for place in places)])
            for name, a, b in zip(names, one, other, strict=True):
                rows = _placed(a, places, count), _placed(b, [*wanted], count)
                ours[name], theirs[name] = (np.moveaxis(side, 0, self._axes[name]) for side in rows)
        return ours, theirs

    def _together(self, expected: Outputs) -> list[list[str]]:
        def count(name: str) -> int:
            return int(expected[name].shape[self._axes[name]])

        return [list(names) for _, names in groupby(sorted(self._axes, key=count), key=count)]


def _without_fillers(side: list[Array]) -> list[Array]:
    """Return arrays without the last rows in which all of them hold fillers; all have as many rows."""
    count = min(len(array) for array in side)
    while count and all((array[count - 1] == filler(array.dtype)).all() for array in side):
        count -= 1
    return [array[:count] for array in side]


def _places(ours: list[Array], theirs: list[Array]) -> list[int]:
    """Return the place of each of our rows among theirs; places behind their last row are of rows that they lack."""
    count, wanted = len(ours[0]), len(theirs[0])
    places = [-1] * count
    if 0 < count * wanted <= _MOST_PAIRS:
        costs = sum(_costs(a, b) for a, b in zip(ours, theirs, strict=True))
        taken: set[int] = set()
        for pair in np.argsort(costs, axis=None, kind="stable").tolist():
            row, place = divmod(pair, wanted)
            if places[row] < 0 and place not in taken:
                places[row] = place
                taken.add(place)
                if len(taken) == min(count, wanted):
                    break
    else:
        places[:wanted] = range(min(count, wanted))
    behind = iter(range(wanted, wanted + count))
    return [next(behind) if place < 0 else place for place in places]


def _costs(ours: Array, theirs: Array) -> Array:
    """Return how unlike each of our rows is to each of theirs (ours, theirs), from 0 on: 1 for other integers, and for
    floats as far apart as their largest number."""
    a, b = (side.reshape(len(side), -1).astype(np.float64) for side in (ours, theirs))
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    if ours.dtype.kind != "f":
        return np.stack([(row != b).mean(axis=1) for row in a])
    scale = max(float(np.abs(b).max(initial=0.0)), 1e-30)
    return np.stack([np.abs(row - b).mean(axis=1) for row in a]) / scale


def _placed(rows: Array, places: list[int], count: int) -> Array:
    """Return `count` rows: the given ones in their places, and fillers in all others."""
    result = np.full((count, *rows.shape[1:]), filler(rows.dtype), rows.dtype)
    result[places] = rows
    return result
