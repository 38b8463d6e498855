"""What every kind of model is asked, and how the answers are printed."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from backends.bundle import Bundle


@dataclass(frozen=True)
class Request:
    """The options of `toolkit run` that all kinds have."""

    bundle: "Bundle"
    inputs: tuple[str, ...]
    backend: str
    precision: str
    threads: int | None
    as_json: bool

    def row(self, name: str, role: str, **found: Any) -> dict[str, Any]:
        """One answer as --json prints it: what ran, then what was found."""
        from backends.registry import SESSIONS

        artifact = self.bundle.find(role, SESSIONS.load(self.backend).FORMAT, self.precision)
        return {
            "image": name,
            "model": self.bundle.model["name"],
            "backend": self.backend,
            "precision": self.precision,
            "artifact_sha256": artifact.sha256,
            "weights": self.bundle.weights["origin"],
            **found,
        }

    def show(self, row: dict[str, Any], lines: list[str]) -> None:
        """Print one answer: the row with --json, else the lines under what was read."""
        if self.as_json:
            click.echo(json.dumps(row, allow_nan=False))
            return
        click.echo(f"{row['image']}: {row['model']} on {row['backend']}, {row['precision']}, {row['weights']} weights")
        for line in lines:
            click.echo(f"  {line}")


def milliseconds(timing_ms: dict[str, list[float]]) -> str:
    """Each graph, how often it ran, and how long that took."""
    parts = [f"{role} {len(times)} x {sum(times) / len(times):.1f}" for role, times in timing_ms.items()]
    return f"{', '.join(parts)} ms"
