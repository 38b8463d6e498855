"""The text of LIMITS.md: the speed of each file over the ceilings of the machine."""

from typing import Any

import msgspec

from backends.machine import Machine
from benchmarks.readme import measured_on, read, table

# Files of these precisions are compared with the ceiling of eight bits.
_EIGHT_BITS = ("int8", "int8-static", "mixed")


def limits() -> str:
    """Return the text of LIMITS.md."""
    result = read("limits")
    most = result["ceilings"]
    place = measured_on(msgspec.convert(result["machine"], Machine), result["threads"])
    head = (
        "# Limits\n\n"
        "What the files reach of what the machine can do. Written by `python -m benchmarks.readme`, from "
        "[results/limits.json](results/limits.json); do not edit.\n\n"
        f"{place}. "
        f"Matrix products of {most['side']} rows and columns reach at most **{most['float32_gops']:.0f} GFLOP/s** in "
        f"float32 and **{most['int8_gops']:.0f} GOP/s** in eight bits; copying memory moves "
        f"{most['copy_gb_s']:.0f} GB/s. "
        "A multiplication and an addition count as two. Files of int8 precisions are held to the second figure, the "
        "others to the first.\n"
    )
    return head + "".join(_section(model, most) for model in result["models"])


def _section(model: dict[str, Any], most: dict[str, float]) -> str:
    cost = model["cost"]
    columns = ["file", "ms", "GOP/s", "of the ceiling", "operators", "where the time goes"]
    shown = table(columns, [_row(row, most) for row in model["files"]])
    return (
        f"\n## {model['name']}\n\n"
        f"{cost['operations'] / 1e9:.2f} GFLOP an image, {cost['weight_bytes'] / 1e6:.1f} MB of float32 weights, "
        f"{cost['map_bytes'] / 1e6:.0f} MB read and written between operators if no cache held any of it. At the "
        f"ceilings: {cost['operations'] / 1e6 / most['float32_gops']:.2f} ms in float32, "
        f"{cost['operations'] / 1e6 / most['int8_gops']:.2f} ms in eight bits. Weights are {model['weights']}.\n\n"
        f"{shown}\n".replace("--:|\n", "---|\n", 1)
    )


def _row(row: dict[str, Any], most: dict[str, float]) -> list[str]:
    ceiling = most["int8_gops" if row["precision"] in _EIGHT_BITS else "float32_gops"]
    kinds = ", ".join(f"{kind['kind'].replace('|', '/')} {kind['share']:.0%}" for kind in row["profile"])
    speed = [f"{row['median_ms']:.1f}", f"{row['gops']:.0f}", f"{row['gops'] / ceiling:.0%}"]
    return [row["file"].removeprefix("detector."), *speed, str(row["operators"]), kinds]
