"""The figures of a detector file's readings against torch's: right bits, flipped bits, and the error of the logits.

Intervals are 95%, over photographs (bootstrap). `loss_pp` is torch's bit accuracy minus the file's, in percentage
points.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backends.artifact import Artifact
from benchmarks.readings import Floats
from toolkit.metrics.error import RunningMetrics
from toolkit.models.watermark.message import matching_bits_needed
from training.measure import interval_95

Messages = NDArray[np.int64]


def row_of(artifact: Artifact, logits: Floats, reference: Floats, messages: Messages) -> dict[str, Any]:
    """Return the figures of a file against the reference: right bits, flipped bits, and the error of the logits."""
    error = RunningMetrics()
    error.add("all", logits, reference)
    numbers = error.result()
    flipped = (logits > 0)[..., 1:] != (reference > 0)[..., 1:]
    return {
        "file": artifact.file,
        "precision": artifact.precision,
        "route": artifact.route,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        **_accuracy(logits, reference, messages),
        "bits_flipped": float(flipped.mean()),
        "bits_flipped_interval_95": interval_95(flipped.mean(axis=(1, 2)).tolist(), np.random.default_rng(0)),
        "channel_changed": int(((logits > 0)[..., 0] != (reference > 0)[..., 0]).sum()),
        "cosine": numbers.cosine,
        "signal_to_noise_db": numbers.signal_to_noise_db,
    }


def _accuracy(logits: Floats, reference: Floats, messages: Messages) -> dict[str, Any]:
    needed = matching_bits_needed(messages.shape[-1])
    right, reference_right = (logits[..., 1:] > 0) == messages, (reference[..., 1:] > 0) == messages
    loss_pp = 100 * (reference_right.mean(axis=(1, 2)) - right.mean(axis=(1, 2)))
    verdicts = right.sum(axis=-1) >= (needed or 0)
    return {
        "bit_accuracy": float(right.mean()),
        "bit_accuracy_interval_95": interval_95(right.mean(axis=(1, 2)).tolist(), np.random.default_rng(0)),
        "loss_pp": float(loss_pp.mean()),
        "loss_pp_interval_95": interval_95(loss_pp.tolist(), np.random.default_rng(0)),
        "verdicts_changed": int((verdicts != (reference_right.sum(axis=-1) >= (needed or 0))).sum()),
    }


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return the figures of `row_of` as a table for the terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("file", overflow="fold")
    for heading in ("MB", "right", "loss,\npoints", "flipped", "verdicts", "cosine", "SNR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        snr = row["signal_to_noise_db"]
        table.add_row(
            row["file"].removeprefix("detector."),
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['bit_accuracy']:.3%}",
            f"{row['loss_pp']:+.3f}",
            f"{row['bits_flipped']:.3%}",
            str(row["verdicts_changed"]),
            f"{row['cosine']:.5f}",
            "same" if snr is None else f"{snr:.1f}",
        )
    return table
