"""The README's table of recipes, from the committed results: `python -m benchmarks.recipes_table`."""

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.readme_block import write_block

RESULTS = Path(__file__).parent / "results"
# What `-p` accepts, in the order in which it is explained.
_RECIPES = {
    "fp32": "as exported",
    "fp16": "weights in float16, made float32 as the file loads",
    "int8-w": "weights in INT8, made float32 as the file loads",
    "int8": "weights in INT8, activations quantized as they come",
    "mixed": "as `int8`, but layers in float16: here, those without which bits flip on 128 images of other photographs",
    "int8-static": "weights in INT8, activations over calibrated ranges",
    "int16x8": "as `int8-static`, activations in 16 bits",
}


def table(result: dict[str, Any]) -> str:
    """Markdown, a row a recipe: size, loss with its interval and bits flipped, on both runtimes."""
    files = {(row["precision"], row["file"].rsplit(".", 1)[1]): row for row in result["files"] if row["route"] != "tf"}
    lines = [
        "| `-p` | | ONNX Runtime: MB | loss, points | flipped | TFLite: MB | loss, points | flipped |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, meaning in _RECIPES.items():
        cells = [cell for kind in ("onnx", "tflite") for cell in _cells(files.get((name, kind)))]
        lines.append(f"| `{name}` | {meaning} | {' | '.join(cells)} |")
    return "\n".join(lines)


def calibrations(result: dict[str, Any]) -> str:
    """Markdown: bits flipped by static INT8, a row for what it was calibrated on, a column a method and runtime."""
    flipped = {
        (row["calibration"], row["method"], row["file"].rsplit(".", 1)[1]): row["bits_flipped"]
        for row in result["files"]
    }
    seen, methods = ([*dict.fromkeys(key[i] for key in flipped)] for i in (0, 1))
    lines = ["| calibrated on | " + " | ".join(methods) + " |", "|---|" + "--:|" * len(methods)]
    for source in seen:
        cells = [" / ".join(f"{flipped[source, m, kind]:.2%}" for kind in ("onnx", "tflite")) for m in methods]
        lines.append(f"| {source} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: dict[str, Any] | None) -> tuple[str, str, str]:
    if row is None:
        return "-", "-", "-"
    low, high = row["loss_pp_interval_95"]
    loss = f"{row['loss_pp']:.3f} ({low:.3f} to {high:.3f})"
    return f"{row['bytes'] / 1e6:.2f}", loss, f"{row['bits_flipped']:.3%}"


@click.command(help=__doc__)
def main() -> None:
    result = json.loads((RESULTS / "recipes-pocketseal.json").read_text())
    text = (
        f"{result['readings']} readings of {result['photographs']} marked photographs, distorted in "
        f"{len(result['distortions'])} ways; the loss of right bits is against torch in float32, with its 95% interval "
        f"over photographs:\n\n{table(result)}\n"
    )
    seen = json.loads((RESULTS / "calibration-pocketseal.json").read_text())
    text += (
        f"\nBits that `int8-static` flips in {seen['readings']} readings, on ONNX Runtime / TFLite, by what it was "
        f"calibrated on and how:\n\n{calibrations(seen)}\n"
    )
    write_block("recipes", text)


if __name__ == "__main__":
    main()
