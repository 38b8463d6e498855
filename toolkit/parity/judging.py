"""What judges the answers of a kind of model, beside the raw error: named numbers, each of which a Limit may bound."""

from collections.abc import Mapping
from typing import Any, Protocol

from backends.tensor import Array
from toolkit.parity.sample import Sample


class Judge(Protocol):
    """Sees every sample once, and keeps sums of them."""

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        """One sample: what the file gave, and the reference. Outputs by name, of finite values."""

    def numbers(self) -> dict[str, float]:
        """By the names that limits use. What could not be counted is not there."""

    def uncounted(self) -> dict[str, str]:
        """The numbers that the samples could not give, and why: these are not judged, and the report says so."""

    def details(self) -> dict[str, Any]:
        """Everything else that a report may show, as JSON values."""


class NoJudge:
    """For outputs that are judged by their error alone."""

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        return None

    def numbers(self) -> dict[str, float]:
        return {}

    def uncounted(self) -> dict[str, str]:
        return {}

    def details(self) -> dict[str, Any]:
        return {}
