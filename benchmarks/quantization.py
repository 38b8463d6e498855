"""What quantization costs in bits: every detector file on the same marked, distorted photographs, beside float32.

`python -m benchmarks.quantization build/pocketseal --out benchmarks/results/quantization-pocketseal.json`
Held-out photographs, brought to one megapixel and marked; each reading is preprocessed once and given to every file.
Bit accuracy against the message that was hidden, and bits that differ from torch's; intervals are 95%, over
photographs (bootstrap). `loss_pp` is torch's accuracy minus the file's, in percentage points, photograph by photograph.
Random weights read nothing in an image: then the photographs are not marked, and bits are compared with torch's alone.

All files of a model, calibrated and searched on photographs that it is not measured on:
`python -m benchmarks.marked build/pocketseal --out build/marked`
`toolkit convert build/pocketseal -p fp32 -p fp16 -p int8 -p int8-static -p int8-w -p int16x8 -p mixed
--calibration build/marked --images build/marked --budget "flips<=0%"`
`python -m benchmarks.quantization build/pocketseal --messages 1 --out benchmarks/results/recipes-pocketseal.json`
"""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.bundle import Bundle
from backends.machine import describe
from benchmarks.readings import PIXELS, UNMARKED, logits_of, read_marked, read_unmarked, row_of
from toolkit.images.distortions import FURTHER, MAIN
from training.photographs import fetch, held_out


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return the figures of `row_of` as a table for the terminal."""
    table = Table("file", "MB", "right", "loss, points", "flipped", "verdicts", "cosine", "SNR")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        snr = row["signal_to_noise_db"]
        table.add_row(
            row["file"].removeprefix("detector."),
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['bit_accuracy']:.3%}" if "bit_accuracy" in row else "",
            f"{row['loss_pp']:+.3f}" if "loss_pp" in row else "",
            f"{row['bits_flipped']:.3%}",
            str(row.get("verdicts_changed", "")),
            f"{row['cosine']:.5f}",
            "same" if snr is None else f"{snr:.1f}",
        )
    return table


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--messages", type=click.IntRange(min=1), default=3, show_default=True, help="In each photograph.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(folder: Path, data: Path, messages: int, out: Path | None) -> None:
    fetch(data)
    bundle = Bundle.open(folder)
    photographs = held_out(data)
    marked = bundle.weights["origin"] != "random"
    side = int(bundle.model["image_size_px"])
    readings = read_marked(folder, photographs, messages) if marked else read_unmarked(side, photographs)
    artifacts = [artifact for artifact in bundle.artifacts if artifact.role == "detector"]
    reference = logits_of(bundle, next(a for a in artifacts if a.format == "torch"), readings.inputs)
    with Progress() as progress:
        rows = [
            row_of(artifact, logits_of(bundle, artifact, readings.inputs), reference, readings.messages)
            for artifact in progress.track(artifacts, description="reading")
        ]
    Console().print(table_of(rows))
    if out is not None:
        result = {
            "machine": describe(),
            "model": bundle.model["name"],
            "weights": bundle.weights,
            "photographs": len(readings.inputs),
            "pixels": PIXELS,
            "messages": messages if marked else 0,
            "distortions": list(MAIN | FURTHER) if marked else list(UNMARKED),
            "readings": len(readings.inputs) * readings.inputs.shape[1],
            "files": rows,
        }
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
