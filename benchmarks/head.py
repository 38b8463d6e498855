"""What the result of a timing starts with: the machine, the model, its weights and the threads."""

from typing import Any

from backends.bundle import Bundle
from backends.machine import describe


def head(bundle: Bundle, threads: int) -> dict[str, Any]:
    """As JSON values, in the order in which they are read."""
    return {"machine": describe(), "model": bundle.model["name"], "weights": bundle.weights, "threads": threads}
