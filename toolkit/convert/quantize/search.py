"""Searches the layers that a mixed-precision file keeps in FP16 so that it stays within a budget."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Progress
from backends.errors import InvalidInput, NotAvailable
from backends.machine import default_threads
from backends.registry import BACKENDS
from backends.tensor import Array
from backends.timing import Rounds, time_rounds
from toolkit.convert.rules import MessageRule

_FORM = re.compile(r"\s*(flips|size|latency)\s*<=\s*([0-9]+(?:\.[0-9]+)?)\s*(%|MB|ms)\s*")
_UNITS = {"flips": ("%", 0.01), "size": ("MB", 1e6), "latency": ("ms", 1.0)}
_EXAMPLES = '"flips<=0.2%", "size<=12MB" or "latency<=20ms"'


@dataclass(frozen=True)
class Budget:
    """The most that a mixed file may cost.

    kind and limit: "flips", share of bits in [0, 1], with no verdict changed; "size" in bytes; "latency" in ms.
    """

    text: str
    kind: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read a text like "flips<=0.2%", "size<=12MB" (decimal megabytes) or "latency<=20ms". Raises InvalidInput for
        any other form."""
        match = _FORM.fullmatch(text)
        if match is None or match[3] != _UNITS[match[1]][0]:
            raise InvalidInput(f"budget: expected {_EXAMPLES}, got {text!r}")
        return cls(f"{match[1]}<={match[2]}{match[3]}", match[1], float(match[2]) * _UNITS[match[1]][1])


@dataclass(frozen=True)
class MixedCost:
    """The difference of a file from the float32 graph on some images, its size, and its latency.

    flips: share of the messages' bits that differ, in [0, 1]. verdicts_changed: number of images whose detection logit
    is on the other side of its threshold, or with too few equal bits for a positive verdict. error: norm of the
    difference of the logits over the norm of the float32 logits. latency_ms: None if not measured.
    """

    flips: float
    verdicts_changed: int
    error: float
    bytes: int
    latency_ms: float | None  # measured only for a latency budget: it takes extra runs

    def within(self, budget: Budget) -> bool:
        """Return whether the file keeps a budget. A latency that was not measured does not keep a latency budget."""
        if budget.kind == "flips":
            return self.verdicts_changed == 0 and self.flips <= budget.limit
        if budget.kind == "size":
            return self.bytes <= budget.limit
        return self.latency_ms is not None and self.latency_ms <= budget.limit

    def __str__(self) -> str:
        latency = "" if self.latency_ms is None else f", {self.latency_ms:.1f} ms"
        changed = f"{self.verdicts_changed} verdicts changed"
        return f"{self.flips:.3%} of bits flipped, {changed}, {self.bytes / 1e6:.2f} MB{latency}"


# The number of images on which the quantization of a single layer is measured. Few are enough: the error is an average
# over all logits, and each image has many.
ALONE_IMAGES = 32

_LATENCY_ROUNDS = Rounds(0.0, warm_ups=0, least=20, until_steady=False)

Write = Callable[[frozenset[str]], tuple[Artifact, tuple[Path, ...]]]


@dataclass(frozen=True)
class FileVariants:
    """The candidate files of one runtime.

    layers: names of all layers that can be kept. write: called with the layers to keep; writes the file, over the one
    before, and returns its artifact and its paths.
    """

    backend: str
    layers: tuple[str, ...]
    write: Write


@dataclass(frozen=True)
class Watched:
    """Images (N, 3, S, S), the float32 graph's logits for them (N, 1 + bits), and how messages are read from logits."""

    images: Array
    logits: Array
    rule: MessageRule

    def first(self, count: int) -> "Watched":
        """Return at most `count` of the images, evenly spread over all, with their logits."""
        chosen = np.linspace(0, len(self.images) - 1, min(count, len(self.images))).astype(int)
        return Watched(self.images[chosen], self.logits[chosen], self.rule)


@dataclass(frozen=True)
class Found:
    """The result of a search.

    kept: the layers in FP16; measured: the file's cost on all images; alone: for each layer, the cost of a file in
    which only this layer is quantized, on ALONE_IMAGES images; checked_files: number of files measured on all images.
    """

    kept: tuple[str, ...]
    measured: MixedCost
    alone: dict[str, MixedCost]
    checked_files: int


def read_logits(path: Path, artifact: Artifact, backend: str, images: Array) -> Array:
    """Run a file on images (N, 3, S, S), one image a run. Returns its logits: (N, 1 + bits) float32."""
    name, output = artifact.inputs[0].spec.name, artifact.outputs[0].spec.name
    with BACKENDS.load(backend).session(path, artifact, default_threads()) as session:
        return np.concatenate([session.run({name: image[None]})[output] for image in images])


def search(trials: FileVariants, budget: Budget, watched: Watched, progress: Progress) -> Found:
    """Search the layers to keep in FP16 within a budget.

    Layers are ranked by the error that quantizing each one alone makes; for a size budget, by that error over the bytes
    that keeping the layer costs. For a flips budget as few layers as possible are kept: the shortest start of the
    ranking that fits, then without each layer that the file can do without. For a size or latency budget, the longest
    start of the ranking that fits is kept.
    The search makes and runs one file for each layer and one for each check.
    Raises NotAvailable if the budget cannot be kept.
    """
    few = watched.first(ALONE_IMAGES)
    every = frozenset(trials.layers)
    largest = measure(trials, every, few)
    alone = {}
    for i, layer in enumerate(trials.layers):
        progress(f"layer {i + 1} of {len(trials.layers)} alone ({trials.backend})")
        alone[layer] = measure(trials, every - {layer}, few)
    checked: dict[frozenset[str], MixedCost] = {}

    def fits(kept: frozenset[str]) -> bool:
        if kept not in checked:
            progress(f"checking {len(kept)} layers in FP16 ({trials.backend})")
            checked[kept] = measure(trials, kept, watched, timed=budget.kind == "latency")
        return checked[kept].within(budget)

    def worth(layer: str) -> float:
        cost = largest.bytes - alone[layer].bytes if budget.kind == "size" else 1
        return alone[layer].error / max(cost, 1)

    order = sorted(trials.layers, key=worth, reverse=True)
    if budget.kind == "flips":
        kept = _fewest(order, fits)
    else:
        kept = frozenset(order[: largest_count(lambda count: fits(frozenset(order[:count])), len(order))])
    if not fits(kept):
        raise NotAvailable(
            f"mixed: {budget.text} cannot be kept on {trials.backend}: "
            f"{len(kept)} of {len(order)} layers in FP16 give {checked[kept]}"
        )
    return Found(tuple(layer for layer in trials.layers if layer in kept), checked[kept], alone, len(checked))


def measure(trials: FileVariants, kept: frozenset[str], watched: Watched, timed: bool = False) -> MixedCost:
    """Make the file that keeps the layers `kept`, run it on the images, and return its cost (latency if `timed`)."""
    artifact, files = trials.write(kept)
    logits = read_logits(files[0], artifact, trials.backend, watched.images)
    latency_ms = _latency_ms(files[0], artifact, trials.backend, watched.images[:1]) if timed else None
    size = sum(path.stat().st_size for path in files)
    return compared(logits, watched, size, latency_ms)


def compared(logits: Array, watched: Watched, size_bytes: int, latency_ms: float | None = None) -> MixedCost:
    """Compare a file's logits (N, 1 + bits) with those of the float32 graph, and return the cost."""
    got, expected = logits[:, 1:] > 0, watched.logits[:, 1:] > 0
    flipped = got != expected
    needed = watched.rule.bits_needed
    changed = np.zeros(len(flipped), bool) if needed is None else (~flipped).sum(axis=1) < needed
    if (threshold := watched.rule.detection_threshold) is not None:
        changed |= (logits[:, 0] > threshold) != (watched.logits[:, 0] > threshold)
    error = np.linalg.norm(logits - watched.logits) / max(float(np.linalg.norm(watched.logits)), 1e-12)
    return MixedCost(float(flipped.mean()), int(changed.sum()), float(error), size_bytes, latency_ms)


def _fewest(order: list[str], fits: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    def too_few(count: int) -> bool:
        return not fits(frozenset(order[:count]))

    count = 0 if not too_few(0) else 1 + largest_count(too_few, len(order) - 1)
    kept = frozenset(order[:count])
    for layer in reversed(order[:count]):
        if fits(kept) and fits(kept - {layer}):
            kept -= {layer}
    return kept


def largest_count(holds: Callable[[int], bool], most: int) -> int:
    """Return the largest count in 1..most for which `holds` is true, or 0 if there is none, by bisection.

    If `holds` is true for a count, it must be true for every smaller count.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _latency_ms(path: Path, artifact: Artifact, backend: str, image: Array) -> float:
    feeds: dict[str, Any] = {artifact.inputs[0].spec.name: image}
    with BACKENDS.load(backend).session(path, artifact, default_threads()) as session:
        samples = time_rounds({"file": partial(session.run, feeds)}, _LATENCY_ROUNDS)
    return float(np.median(samples["file"]))
