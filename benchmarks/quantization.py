"""Measure the bits that quantization costs: every detector file reads the same marked, distorted photographs.

`python -m benchmarks.quantization build/pocketseal --out benchmarks/results/quantization-pocketseal.json`
The photographs are held out from training, and have one megapixel. The files are compared with torch in float32; see
`benchmarks.reading_figures`. The weights must be trained: random weights read no message.

All files of a model, calibrated and searched on photographs that it is not measured on:
`python -m benchmarks.marked build/pocketseal --out build/marked`
`toolkit convert build/pocketseal -p fp32 -p fp16 -p int8 -p int8-static -p int8-w -p int16x8 -p mixed
--calibration build/marked --images build/marked --budget "flips<=0%"`
`python -m benchmarks.quantization build/pocketseal --messages 1 --out benchmarks/results/recipes-pocketseal.json`
"""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from backends.bundle import Bundle
from backends.machine import Machine
from benchmarks.reading_figures import row_of, table_of
from benchmarks.readings import PIXELS, logits_of, read_marked
from toolkit.images.distortions import FURTHER, MAIN
from training.photographs import fetch, held_out


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--messages", type=click.IntRange(min=1), default=3, show_default=True, help="In each photograph.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(folder: Path, data: Path, messages: int, out: Path | None) -> None:
    fetch(data)
    bundle = Bundle.open(folder)
    if bundle.weights.is_random:
        raise click.UsageError(f"{folder}: expected trained weights; random weights read no message")
    readings = read_marked(folder, held_out(data), messages)
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
            "machine": Machine.here().to_json(),
            "model": bundle.model["name"],
            "weights": asdict(bundle.weights),
            "photographs": len(readings.inputs),
            "pixels": PIXELS,
            "messages": messages,
            "distortions": list(MAIN | FURTHER),
            "readings": len(readings.inputs) * readings.inputs.shape[1],
            "files": rows,
        }
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
