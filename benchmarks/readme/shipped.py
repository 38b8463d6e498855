"""The README's block on a model of one's own: what `toolkit ship --json` wrote of one network."""

from typing import Any

import msgspec

from backends.machine import Machine
from backends.timing import STEADY
from benchmarks.readme import machines, measured_on, read, table

RESULT = "ship-resnet50"


def shipped() -> str:
    """Return the block: a row for each file, and the advice for each runtime; again for each further machine."""
    return "\n".join(_shipped(read(RESULT + ending)) for ending in machines(RESULT))


def _shipped(result: dict[str, Any]) -> str:
    place = measured_on(msgspec.convert(result["machine"], Machine), result["threads"])
    rows = [_row(file) for file in result["files"]]
    advice = "\n".join(f"    {choice['reason']}" for choice in result["choices"])
    weights = "random weights" if result["weights"]["origin"] == "random" else "trained weights"
    return (
        f"{table(['file', 'runtime', 'verdict', 'MB', 'ms', 'speed'], rows, left=3)}\n\n{advice}\n\n"
        f"That was {result['weights']['source']}, {weights}; {place}"
        f"{_restless(result['files'])}.\n"
    )


def _restless(files: list[dict[str, Any]]) -> str:
    """Return a remark on times that moved while they were taken, or ""."""
    noise = max(file["noise"] or 0.0 for file in files)
    return f"; the times of one file moved by up to {noise:.0%}" if noise > STEADY else ""


def _row(file: dict[str, Any]) -> list[str]:
    figures = (file["bytes"] and f"{file['bytes'] / 1e6:.2f}", file["median_ms"] and f"{file['median_ms']:.1f}")
    speed = file["speed"] and f"{file['speed']:.2f}x"
    return [file["file"], file["runtime"], file["verdict"], *(one or "" for one in (*figures, speed))]
