"""Measure the bits that static INT8 costs by its calibration: the images and the method that set the ranges.

`python -m benchmarks.calibration build/pocketseal --images build/marked --out FILE`
Each method calibrates on a folder of marked photographs (see `benchmarks.marked`) and on generated images. The files
are measured as in `benchmarks.quantization`, on other photographs, with one message in each.
"""

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from backends.bundle import Bundle
from backends.machine import Machine
from benchmarks.reading_figures import row_of, table_of
from benchmarks.readings import logits_of, read_marked
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.worker.ranges import METHODS
from toolkit.parity.agreement import conversion_rules
from training.photographs import held_out


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--images", type=click.Path(path_type=Path, exists=True), required=True, help="Marked photographs.")
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(folder: Path, images: Path, data: Path, out: Path | None) -> None:
    bundle = Bundle.open(folder)
    readings = read_marked(folder, held_out(data), count=1)
    reference = logits_of(bundle, bundle.find("detector", "torch", "fp32"), readings.inputs)
    rows = []
    with Progress() as progress, tempfile.TemporaryDirectory() as name:
        for source in progress.track((images, None), description="calibrating"):
            for method in METHODS:
                copy = Path(name) / method
                shutil.copytree(folder, copy, dirs_exist_ok=True)
                calibration = Calibration(source, method)
                made = convert_bundle(
                    copy, conversion_rules, ("int8-static",), calibration=calibration, strict=True
                ).bundle
                for artifact in (made.find("detector", kind, "int8-static") for kind in ("onnx", "tflite")):
                    row = row_of(artifact, logits_of(made, artifact, readings.inputs), reference, readings.messages)
                    seen = "generated" if source is None else "marked photographs"
                    rows.append({"calibration": seen, "method": method, **row})
    Console().print(table_of([row | {"file": f"{row['calibration']} {row['method']} {row['file']}"} for row in rows]))
    if out is not None:
        result = {
            "machine": Machine.here().to_json(),
            "model": bundle.model["name"],
            "weights": asdict(bundle.weights),
            "photographs": len(readings.inputs),
            "readings": readings.inputs.shape[0] * readings.inputs.shape[1],
            "files": rows,
        }
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
