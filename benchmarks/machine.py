"""What a result was measured on: the toolkit's own description."""

from toolkit.bench.machine import describe

__all__ = ["describe"]
