"""The judge of a watermark detector, by its answers: bits, messages, verdicts and the detection channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

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


@dataclass(frozen=True)
class FlippedBit:
    """A bit that the file reads otherwise than the reference, with the logits of both."""

    bit: int
    reference: float
    file: float


@dataclass(frozen=True)
class MessageReading:
    """The messages of one photograph in hex: the hidden one (None if there is none), and as both files read it."""

    sample: str
    hidden: str | None
    reference: str
    read: str
    flipped: list[FlippedBit]


class FamilyDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over all readings of one family of samples; the fields that may be UNSET are of marked samples only.

    channel_changed: None if the model has no detection threshold. logit_rms: of the reference's bit logits.
    flipped_logits_of_rms: quantiles ("0.5", "0.9", "1") of the reference's absolute logits at the flipped bits, as
    multiples of logit_rms; None without such bits. bits_right, reference_bits_right: shares in [0, 1].
    verdicts_changed: None if the message has too few bits for a verdict.
    """

    readings: int
    bits: int
    bits_flipped: int
    messages_changed: int
    channel_changed: int | None
    logit_rms: float
    flipped_logits_of_rms: dict[str, float] | None
    bits_right: float | UnsetType = UNSET
    reference_bits_right: float | UnsetType = UNSET
    verdicts_changed: int | UnsetType | None = UNSET


class MessageDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The details of a MessageJudge: the sums of each family that has samples, and readings of single photographs."""

    marked: FamilyDetails | UnsetType = UNSET
    real: FamilyDetails | UnsetType = UNSET
    synthetic: FamilyDetails | UnsetType = UNSET
    readings: list[MessageReading]

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> "MessageDetails | None":
        """Return what `MessageJudge.details` gave as JSON values; None for the details of another judge.

        Raises ValueError for readings in another form.
        """
        return msgspec.convert(details, cls) if "readings" in details else None


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
        self._readings: list[MessageReading] = []

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
        details: dict[str, Any] = msgspec.to_builtins(MessageDetails(**families, readings=self._readings))
        return details

    def _details(self, counts: _Counts) -> FamilyDetails:
        spread = (counts.squares / counts.bits) ** 0.5
        is_marked = counts is self._families["marked"]
        return FamilyDetails(
            readings=counts.readings,
            bits=counts.bits,
            bits_flipped=counts.flipped,
            messages_changed=counts.messages_changed,
            channel_changed=None if self._threshold is None else counts.channel_changed,
            logit_rms=spread,
            flipped_logits_of_rms=_quantiles(counts.flipped_at, spread) if counts.flipped and spread else None,
            bits_right=counts.right / counts.bits if is_marked else UNSET,
            reference_bits_right=counts.reference_right / counts.bits if is_marked else UNSET,
            verdicts_changed=(None if self._needed is None else counts.verdicts_changed) if is_marked else UNSET,
        )


def flipped_line(details: Mapping[str, Any]) -> str | None:
    """Return a line that says how many bits flipped in marked readings (if there are none, in unmarked ones), and how
    near zero their logits were in the reference; None if no bit flipped.

    details: of a MessageJudge; None is returned for those of another judge.
    """
    found = MessageDetails.of(details)
    if found is None:
        return None
    name, family = ("real", found.real) if found.marked is UNSET else ("marked", found.marked)
    if family is UNSET or family.flipped_logits_of_rms is None:
        return None
    near = family.flipped_logits_of_rms
    return (
        f"{family.bits_flipped} of {family.bits} {name} bits flipped, in {family.messages_changed} of "
        f"{family.readings} messages; their logits lay at {near['0.5']:.1%} (median) and {near['1']:.1%} (largest) "
        "of the RMS"
    )


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


def _reading(sample: Sample, ours: Array, theirs: Array) -> MessageReading:
    flipped = np.flatnonzero((ours > 0) != (theirs > 0))
    return MessageReading(
        sample=sample.name,
        hidden=None if sample.truth is None else Message(sample.truth).hex,
        reference=Message(tuple((theirs > 0).astype(int).tolist())).hex,
        read=Message(tuple((ours > 0).astype(int).tolist())).hex,
        flipped=[FlippedBit(int(i), float(theirs[i]), float(ours[i])) for i in flipped],
    )


def _quantiles(counts: npt.NDArray[np.int64], spread: float) -> dict[str, float]:
    """Return the quantiles as multiples of `spread`, at most 2.4% too high: the upper edges of their bins."""
    summed = np.cumsum(counts)
    bins = np.searchsorted(summed, [np.ceil(q * summed[-1]) for q in QUANTILES])
    edges = _EDGES[np.minimum(bins, len(_EDGES) - 1)]
    return {f"{q:g}": float(edge / spread) for q, edge in zip(QUANTILES, edges, strict=True)}
