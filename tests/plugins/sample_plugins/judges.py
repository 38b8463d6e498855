"""A judge in one object: it counts the numbers of an output whose sign changed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backends.recipe import Recipe
from toolkit.metrics.limit import Limit
from toolkit.metrics.task import TaskJudge

if TYPE_CHECKING:
    from backends.tensor import Array, TensorSpec
    from toolkit.metrics.samples import Sample


class SignJudge:
    """The judge of one output of any shape, whose answers are the signs of its numbers."""

    def __init__(self, specs: "Sequence[TensorSpec]", setting: float) -> None:
        self._output = specs[0].name
        self._signs = self._changed = 0

    def add(self, sample: "Sample", got: "Mapping[str, Array]", expected: "Mapping[str, Array]") -> None:
        changed = (got[self._output] < 0) != (expected[self._output] < 0)
        self._signs += changed.size
        self._changed += int(changed.sum())

    def numbers(self) -> dict[str, float]:
        return {"signs_changed": self._changed / self._signs} if self._signs else {}

    def uncounted(self) -> dict[str, str]:
        return {} if self._signs else {"signs_changed": "no numbers were read"}

    def details(self) -> dict[str, Any]:
        return {"counted": {"signs changed": [self._changed, self._signs]}}


def _limits(recipe: Recipe) -> tuple[Limit, ...]:
    return (Limit("signs_changed", recipe.limit("choices_changed"), needs_training=False),)


SIGNS = TaskJudge("signs", "signs of an output's numbers", SignJudge, _limits)
