"""The judge of a watermark detector, by its answers: bits, messages, verdicts and the detection channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.metrics.judges import Judge, NoJudge
from toolkit.metrics.samples import FAMILIES, Sample
from toolkit.models.kind import Answers
from toolkit.models.watermark.detector import WatermarkModel
from toolkit.models.watermark.message import Message, matching_bits_needed

QUANTILES = (0.5, 0.9, 1.0)

# Photographs whose messages and flipped bits are kept. Others are only counted, so that memory use is bounded.
READINGS_KEPT = 128

# Upper edges of the bins of a histogram of |logit|, 2.4% apart.
_EDGES = np.geomspace(1e-8, 1e6, 1361)


@dataclass
class _Counts:
    """Sums over the readings of one family."""

    readings: int = 0
    bits: int = 0
    flipped: int = 0
    right: int = 0
    reference_right: int = 0
    messages_changed: int = 0
    verdicts_changed: int = 0
    channel_changed: int = 0
    squares: float = 0.0
    flipped_at: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_EDGES) + 1, np.int64))


class MessageJudge:
    """A judge of "logits" (1, 1 + bits): channel 0 is the detection logit, bit i is set when logits[1 + i] > 0.

    Its numbers are shares over photographs. Of marked ones: bits_flipped, accuracy_loss (right bits lost, as a share of
    all bits; negative if more are right than in the reference) and verdicts_changed. Of marked and unmarked ones:
    channel_changed, if the model has a detection threshold.
    """

    def __init__(self, bits: int, threshold: float | None) -> None:
        self._bits = bits
        self._threshold = threshold
        self._needed = matching_bits_needed(bits)
        self._families = {family: _Counts() for family in FAMILIES}
        self._readings: list[dict[str, Any]] = []

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        counts = self._families[sample.family]
        ours, theirs = got["logits"][0], expected["logits"][0]
        bits, reference_bits = ours[1:] > 0, theirs[1:] > 0
        flipped = bits != reference_bits
        counts.readings += 1
        counts.bits += len(bits)
        counts.flipped += int(flipped.sum())
        counts.messages_changed += bool(flipped.any())
        counts.squares += float(np.square(theirs[1:], dtype=np.float64).sum())
        if flipped.any():
            nearness = np.abs(theirs[1:][flipped]).astype(np.float64)
            counts.flipped_at += np.bincount(np.searchsorted(_EDGES, nearness), minlength=len(_EDGES) + 1)
        if sample.family != "synthetic" and len(self._readings) < READINGS_KEPT:
            self._readings.append(_reading(sample, ours[1:], theirs[1:]))
        if self._threshold is not None:
            counts.channel_changed += bool((ours[0] > self._threshold) != (theirs[0] > self._threshold))
        if sample.truth is not None:
            hidden = np.array(sample.truth, bool)
            right, reference_right = int((bits == hidden).sum()), int((reference_bits == hidden).sum())
            counts.right += right
            counts.reference_right += reference_right
            if self._needed is not None:
                counts.verdicts_changed += (right >= self._needed) != (reference_right >= self._needed)

    def numbers(self) -> dict[str, float]:
        marked, real = self._families["marked"], self._families["real"]
        numbers = {}
        if marked.readings:
            numbers["bits_flipped"] = marked.flipped / marked.bits
            numbers["accuracy_loss"] = (marked.reference_right - marked.right) / marked.bits
            if self._needed is not None:
                numbers["verdicts_changed"] = marked.verdicts_changed / marked.readings
        if self._threshold is not None and (readings := marked.readings + real.readings):
            numbers["channel_changed"] = (marked.channel_changed + real.channel_changed) / readings
        return numbers

    def uncounted(self) -> dict[str, str]:
        reasons: dict[str, str] = {}
        if not self._families["marked"].readings:
            reasons |= dict.fromkeys(("bits_flipped", "accuracy_loss", "verdicts_changed"), "no sample was marked")
        elif self._needed is None:
            reasons["verdicts_changed"] = f"{self._bits} bits are too few for a verdict"
        if self._threshold is None:
            reasons["channel_changed"] = "the model did not train that channel"
        return reasons

    def details(self) -> dict[str, Any]:
        families = {family: self._details(counts) for family, counts in self._families.items() if counts.readings}
        return {**families, "readings": self._readings}

    def _details(self, counts: _Counts) -> dict[str, Any]:
        spread = (counts.squares / counts.bits) ** 0.5
        details: dict[str, Any] = {
            "readings": counts.readings,
            "bits": counts.bits,
            "bits_flipped": counts.flipped,
            "messages_changed": counts.messages_changed,
            "channel_changed": None if self._threshold is None else counts.channel_changed,
            "logit_rms": spread,
            # |logit| of the flipped bits in the reference, as multiples of the RMS of all its bit logits.
            "flipped_logits_of_rms": _quantiles(counts.flipped_at, spread) if counts.flipped and spread else None,
        }
        if counts is self._families["marked"]:
            details["bits_right"] = counts.right / counts.bits
            details["reference_bits_right"] = counts.reference_right / counts.bits
            details["verdicts_changed"] = None if self._needed is None else counts.verdicts_changed
        return details


def judge_of(bundle: Bundle, role: str) -> Judge:
    """Return a judge of messages for a detector, and no judge for an embedder: its error alone is limited."""
    model = WatermarkModel.of(bundle)
    return MessageJudge(model.bits, model.detection_threshold) if role == "detector" else NoJudge()


def message_answers(bundle: Bundle) -> Answers:
    """Return a function that reads a detector's answers: "bits"; "channel" if the model has a detection threshold;
    "verdict" if a message is hidden in the sample and has enough bits for a verdict."""
    model = WatermarkModel.of(bundle)
    needed = matching_bits_needed(model.bits)

    def read(outputs: Mapping[str, Array], truth: tuple[int, ...] | None) -> dict[str, Array]:
        logits = outputs["logits"][0]
        bits = logits[1:] > 0
        found = {"bits": bits}
        if model.detection_threshold is not None:
            found["channel"] = np.array(logits[0] > model.detection_threshold)
        if truth is not None and needed is not None:
            found["verdict"] = np.array(np.count_nonzero(bits == np.array(truth, bool)) >= needed)
        return found

    return read


def _reading(sample: Sample, ours: Array, theirs: Array) -> dict[str, Any]:
    """Return the details of one photograph: its messages as hex, and each flipped bit with both logits."""
    flipped = np.flatnonzero((ours > 0) != (theirs > 0))
    return {
        "sample": sample.name,
        "hidden": None if sample.truth is None else Message(sample.truth).hex,
        "reference": Message(tuple((theirs > 0).astype(int).tolist())).hex,
        "read": Message(tuple((ours > 0).astype(int).tolist())).hex,
        "flipped": [{"bit": int(i), "reference": float(theirs[i]), "file": float(ours[i])} for i in flipped],
    }


def _quantiles(counts: npt.NDArray[np.int64], spread: float) -> dict[str, float]:
    """Return the quantiles as multiples of `spread`, at most 2.4% too high: the upper edges of their bins."""
    summed = np.cumsum(counts)
    bins = np.searchsorted(summed, [np.ceil(q * summed[-1]) for q in QUANTILES])
    edges = _EDGES[np.minimum(bins, len(_EDGES) - 1)]
    return {f"{q:g}": float(edge / spread) for q, edge in zip(QUANTILES, edges, strict=True)}
