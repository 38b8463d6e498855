"""What `toolkit bisect` takes of large and special files: layers, seconds and peak memory.

    python -m benchmarks.bisect_large BUNDLE FILE [--json FILE]

Bisects one file of a bundle in a process of its own, and puts a row into the result, in the place of an older one of
that file. Memory is the kernel's (VmHWM), mapped files included: of the process that runs the float32 graph, and of the
one in which LiteRT runs the candidate's layers.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from backends.machine import describe
from benchmarks.peaks import Watch, peak_mb

OUT = Path(__file__).parent / "results" / "bisect-large.json"
_SHOWN = 3


def measure(folder: Path, file: str) -> dict[str, Any]:
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from toolkit.bisect.bundle import bisect_bundle

    bundle = Bundle.open(folder)
    (artifact,) = (artifact for artifact in bundle.artifacts if artifact.file == file)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as made:
        repro = Path(made) / "repro"
        with Watch(Path(made)) as watch:
            report = bisect_bundle(bundle, file, repro=repro, threads=default_threads(), progress=_say)
        seconds, peak = time.perf_counter() - start, peak_mb()
        shown = subprocess.run([sys.executable, repro / "repro.py"], check=True, capture_output=True, text=True).stdout
    return {
        "model": report.model,
        "weights": report.weights["origin"],
        "file": file,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
        "reference_sha256": bundle.find(artifact.role, "onnx", "fp32").sha256,
        "samples": report.samples,
        "layers": len(report.layers),
        "unmatched": [[one.tensor, one.why] for one in report.unmatched],
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(peak),
        "layers_peak_rss_mb": round(max(watch.started_mb.values(), default=0)),
        "worst": [[one.tensor, one.onnx_op, one.introduced, one.inherited] for one in report.ranked()[:_SHOWN]],
        "inherited_at_the_end": report.layers[-1].inherited,
        "repro": shown.splitlines()[-1],
    }


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


@click.command(help=__doc__)
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.argument("file")
@click.option("--json", "out", type=click.Path(path_type=Path), default=OUT)
def main(bundle: Path, file: str, out: Path) -> None:
    row = measure(bundle, file)
    old = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
    rows = [one for one in old if (one["model"], one["file"]) != (row["model"], row["file"])]
    document = {"machine": describe(), "rows": [*rows, row]}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print({key: value for key, value in row.items() if key != "unmatched"})


if __name__ == "__main__":
    main()
