"""The commands of `benchmarks.large_export` that run a model: in torch, and from each file; and their difference."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peaks import Steps
from toolkit.images.preprocess import preprocess
from toolkit.metrics.error import RunningMetrics

SEED = 0
PHOTOGRAPHS = Path(__file__).parent.parent / "toolkit" / "photographs"
# Memory that a running file may take: this multiple of its size, and this much for results and the runtime.
RUN_SHARE, RUN_MB = 1.25, 1000


def torch(bundle: Path, role: str, steps: Steps) -> dict[str, Any]:
    """Run the torch module on the photographs and write its logits, the reference, to torch.npy."""
    steps("importing torch")
    import torch

    from graphs.checkpoint import random_weights
    from graphs.export import build_loaded
    from graphs.networks.models import find_spec

    steps("drawing random weights")
    spec = find_spec(bundle.name).only(role)
    module = build_loaded(spec.graph(role), random_weights(SEED, spec).states[role])
    steps("running")
    with torch.no_grad():
        logits = [module(torch.from_numpy(image)).numpy() for image in _images(spec.description["image_size_px"])]
    np.save(bundle / "torch.npy", np.concatenate(logits))
    return {}


def run(bundle: Path, file: str, steps: Steps) -> dict[str, Any]:
    """Run a file on each photograph, write its logits to FILE.npy, and return its size, times and memory limit."""
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from backends.timing import Rounds, time_rounds
    from toolkit.bench.together import BenchTarget

    steps("opening it")  # with imports, hashing and loading
    opened = Bundle.open(bundle)
    artifact = next(artifact for artifact in opened.artifacts if artifact.file == file)
    seconds, logits = [], []
    once = Rounds(0.0, warm_ups=0, least=1, until_steady=False)
    with BenchTarget.of(opened, artifact).open(default_threads()) as session:
        for image in _images(artifact.inputs[0].spec.shape[-1]):
            steps("running it")
            logits.append(session.run({"image": image})["logits"])
            (milliseconds,) = time_rounds({file: partial(session.run, {"image": image})}, once)[file]
            seconds.append(round(milliseconds / 1e3, 3))
    steps(None)
    np.save(bundle / f"{file}.npy", np.concatenate(logits))
    limit = round(RUN_SHARE * artifact.bytes / 1e6 + RUN_MB)
    return {"bytes": artifact.bytes, "sha256": artifact.sha256, "run_seconds": seconds, "limit_rss_mb": limit}


def _images(size_px: int) -> list[Any]:
    return [preprocess(path, size_px) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]


def compare(logits: Any, reference: Any) -> dict[str, Any]:
    """Return flipped bits and errors of logits (N, 1 + bits); channel 0 is the detection logit, not a bit."""
    metrics = RunningMetrics()
    metrics.add("photographs", logits, reference)
    error = metrics.result()
    decibels = error.signal_to_noise_db
    return {
        "bits": int(reference[:, 1:].size),
        "flipped_bits": int(((logits > 0) != (reference > 0))[:, 1:].sum()),
        "max_abs": error.max_abs,
        "largest_logit": max(-error.reference_low, error.reference_high),
        "cosine": error.cosine,
        "snr_db": None if decibels is None else round(decibels, 1),
    }
