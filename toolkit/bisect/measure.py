"""Runs two files layer by layer, and measures what each layer of the candidate adds to the error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from backends.tensor import Array
from toolkit.bisect.layers import Cuts, Layer, groups
from toolkit.bisect.noise import noise_to_signal, rms
from toolkit.bisect.stream import Stream

# Of results that are held at once, in both files. Beside them there are those that later layers read.
LIMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class Measured:
    """The two errors of a layer, as toolkit.bisect.report says them."""

    layer: Layer
    inherited: float
    introduced: float


@dataclass(frozen=True)
class Worst:
    """The layer that introduces most, the reference's inputs of it by name, and what the reference makes of them."""

    measured: Measured
    feeds: Mapping[str, Array]
    expected: Array


def measure_layers(
    reference: ir.Model,
    folder: Path,
    cuts: Cuts,
    feeds: Mapping[str, Array],
    threads: int,
    progress: Callable[[str], None],
    limit_bytes: int = LIMIT_BYTES,
) -> tuple[list[Measured], Worst | None]:
    """Measure every layer on one sample, and keep what shows the worst of them. `folder` is that of the reference.

    The reference runs once, some layers at a time. Each layer of the candidate is loaded alone and runs twice: on what
    the reference has there, and on what the candidate's own layers before it made. So it is never loaded whole.
    """
    run = _Run(cuts, feeds)
    stream = Stream(reference, folder, feeds, threads)
    for group in groups(cuts.layers, limit_bytes):
        progress(f"running the reference to {group[-1].match.name}")
        run.expected |= stream.advance(group[-1].index + 1, {layer.value for layer in group})
        for layer in group:
            progress(f"layer {len(run.done) + 1} of {len(cuts.layers)}: {layer.match.name}")
            run.measure(layer, threads)
    return run.done, run.worst


class _Run:
    """What is known of both files so far: of their values, those that later layers read."""

    def __init__(self, cuts: Cuts, feeds: Mapping[str, Array]) -> None:
        self.done: list[Measured] = []
        self.worst: Worst | None = None
        self.expected = {match.name: feeds[match.name] for match in cuts.inputs}
        self._got = {match.name: match.to_stored(feeds[match.name]) for match in cuts.inputs}
        self._last = _last_readers(cuts.layers)

    def measure(self, layer: Layer, threads: int) -> None:
        name, stored = layer.match.name, layer.match.stored.name
        given = {match.stored.name: match.to_stored(self.expected[match.name]) for match in layer.inputs}
        own = {match.stored.name: self._got[match.name] for match in layer.inputs}
        alone, chained = (results[stored] for results in layer.part.run([given, own], threads))
        expected = self.expected[name]
        floats = [self.expected[match.name] for match in layer.inputs if match.dtype.startswith("float")]
        size = max((rms(values) for values in floats), default=0.0)
        inherited, introduced = (
            noise_to_signal(layer.match.from_stored(got), expected, size) for got in (chained, alone)
        )
        self.done.append(Measured(layer, inherited, introduced))
        if self.worst is None or introduced > self.worst.measured.introduced:
            feeds = {match.name: self.expected[match.name] for match in layer.inputs}
            self.worst = Worst(self.done[-1], feeds, expected)
        self._got[name] = chained
        for values in (self.expected, self._got):
            for read in (*(match.name for match in layer.inputs), name):
                if self._last.get(read, 0) <= len(self.done):
                    values.pop(read, None)


def _last_readers(layers: Sequence[Layer]) -> dict[str, int]:
    """By tensor, how many layers are done when the last that reads it is."""
    return {match.name: number for number, layer in enumerate(layers, 1) for match in layer.inputs}
