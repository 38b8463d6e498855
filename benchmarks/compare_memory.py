"""Peak memory of `toolkit compare` over 100, 1 000 and 10 000 images: it must not grow with them.

    python -m benchmarks.compare_memory [--counts 100,1000,10000] [--json FILE]

The images are crops of the photographs that ship with the package, each of its own place and size, saved as JPEG. The
shipped detector's TFLite file in INT8 is held to its float32 ONNX file on all of them, as they are and distorted. Every
count is a process of its own, whose peak is the kernel's. Exit code 1 if the largest count takes more than 5% above
the smallest.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from backends.bundle import Bundle
from backends.machine import describe
from toolkit.export import SHIPPED
from toolkit.images.samples import shipped_photographs

OUT = Path(__file__).parent / "results" / "compare-memory.json"
FILES = ("detector.onnx", "detector.int8.tflite")
GROWTH = 1.05
_SIDES_PX = (64, 192)

# In a process of its own: what it took, and what compare says.
_COMPARE = """
import json, sys
from pathlib import Path
from backends.bundle import Bundle
from benchmarks.peaks import peak_mb
from toolkit.parity.compare import compare_bundle
from toolkit.images.open import image_files
report = compare_bundle(Bundle.open(Path(sys.argv[1])), image_files(Path(sys.argv[2])))
print(json.dumps({"peak_rss_mb": peak_mb(), "passed": report.passed, "samples": report.roles[0].samples}))
"""


def write_crops(folder: Path, count: int) -> None:
    """Square crops of the shipped photographs, seeded: the first of them are the same for any count."""
    photographs = [Image.open(path).convert("RGB") for path in shipped_photographs()]
    rng = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        side = int(rng.integers(*_SIDES_PX))
        left, top = (int(rng.integers(length - side)) for length in photograph.size)
        photograph.crop((left, top, left + side, top + side)).save(folder / f"{number:05d}.jpg", quality=90)


def write_bundle(folder: Path) -> None:
    """The shipped detector's two files alone: without an embedder nothing is marked, and 10 000 images take minutes."""
    shipped = Bundle.open(SHIPPED / "pocketseal")
    artifacts = tuple(artifact for artifact in shipped.artifacts if artifact.file in FILES)
    folder.mkdir()
    for artifact in artifacts:
        for file in artifact.files:
            shutil.copyfile(shipped.folder / file, folder / file)
    replace(shipped, folder=folder, model=shipped.model | {"embedder": None}, artifacts=artifacts).write()


def measure(count: int, folder: Path) -> dict[str, Any]:
    images, bundle = folder / "images", folder / "bundle"
    images.mkdir()
    write_crops(images, count)
    write_bundle(bundle)
    command = [sys.executable, "-c", _COMPARE, str(bundle), str(images)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"images": count, **json.loads(done.stdout)}


@click.command(help=__doc__)
@click.option("--counts", default="100,1000,10000", show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), default=OUT)
def main(counts: str, out: Path) -> None:
    rows = []
    with Progress(console=Console(stderr=True)) as progress:
        for count in progress.track([int(count) for count in counts.split(",")], description="comparing"):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(count, Path(folder)))
            print(rows[-1])
    growth = rows[-1]["peak_rss_mb"] / rows[0]["peak_rss_mb"]
    document = {"machine": describe(), "files": FILES, "growth": growth, "at_most": GROWTH, "rows": rows}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if growth > GROWTH:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
