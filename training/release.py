"""Turn trained weights into the bundle that ships: `python -m training.release --weights build/training`.

The detection channel's bias moves so that its threshold, chosen on the validation photographs, becomes 0. Static INT8
is calibrated on them too, most of them marked. Without --weights, those that ship are exported and converted again as
they are: for a graph or a converter that has changed.
"""

import json
import shutil
import tempfile
from pathlib import Path

import click
import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

import toolkit
from backends import crash_check
from graphs.checkpoint import load_checkpoint
from graphs.networks.models import find_spec
from graphs.networks.seal.cards import POCKET_EMBEDDER
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.export import export_bundle
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Message
from toolkit.parity.agreement import conversion_rules
from training.measure import detection_threshold, measure_photographs
from training.photographs import fetch, validation_photographs

MODEL = "pocketseal"
CALIBRATION_IMAGES = 48
SHIPPED = Path(toolkit.__file__).parent / "bundles" / MODEL


def combined(weights: Path, threshold: float, out: Path) -> None:
    """Write both networks to one file, under the names of a checkpoint, and lower the detection bias by `threshold`."""
    state = {}
    for role in ("detector", "embedder"):
        state |= {f"{role}.{key}": value for key, value in load_file(weights / f"{role}.safetensors").items()}
    state["detector.pixel_decoder.linear.bias"][0] -= threshold
    save_file(state, out)


def calibration_images(bundle: Path, photographs: list[Path], folder: Path) -> None:
    """Write CALIBRATION_IMAGES photographs to `folder`, two of three marked, as JPEG and PNG in turn."""
    rng = np.random.default_rng(0)
    with Embedder.open(bundle) as embedder:
        for index in range(CALIBRATION_IMAGES):
            image = Image.open(photographs[index % len(photographs)]).convert("RGB")
            message = Message.drawn(embedder.model.bits, rng)
            marked = embedder.embed(image, message).image if index % 3 else image
            suffix = "jpg" if index % 2 else "png"
            marked.save(folder / f"{index:03d}.{suffix}")


@click.command(help=__doc__)
@click.option("--weights", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--build", type=click.Path(path_type=Path), default="build/release", show_default=True)
def main(weights: Path | None, data: Path, build: Path) -> None:
    fetch(data)
    threshold = 0.0
    if weights is not None:
        threshold = detection_threshold(
            measure_photographs(validation_photographs(data), weights, POCKET_EMBEDDER.scaling_w)
        )
        click.echo(f"the detection logit {threshold:.2f} becomes 0")
    build.mkdir(parents=True, exist_ok=True)
    checkpoint = build / f"{MODEL}.safetensors"
    combined(weights or SHIPPED, threshold, checkpoint)
    spec = find_spec(MODEL)
    bundle = build / MODEL
    export_bundle(spec, load_checkpoint(checkpoint, spec, origin="trained"), bundle, progress=click.echo)
    with tempfile.TemporaryDirectory() as name:
        calibration_images(bundle, validation_photographs(data), Path(name))
        made = convert_bundle(
            bundle,
            conversion_rules,
            ("fp32", "fp16", "int8", "int8-static"),
            calibration=Calibration(Path(name)),
            progress=click.echo,
            strict=True,
        ).bundle
    SHIPPED.mkdir(parents=True, exist_ok=True)
    manifest = bundle / "bundle.json"
    for artifact in made.artifacts:
        for file in artifact.files:
            shutil.copyfile(bundle / file, SHIPPED / file)
    shutil.copyfile(manifest, SHIPPED / manifest.name)
    survived = [
        crash_check.entry("ai-edge-litert", artifact.sha256)
        for artifact in made.artifacts
        if artifact.format == "tflite"
    ]
    crash_check.SHIPPED.write_text("\n".join(survived) + "\n", encoding="utf-8")
    click.echo(json.dumps({artifact.file: artifact.bytes for artifact in made.artifacts}, indent=1))


if __name__ == "__main__":
    main()
