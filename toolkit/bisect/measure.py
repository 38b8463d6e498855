"""Measures the error of each layer: runs the reference in pieces, and each layer of the candidate alone."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx.part import OnnxPartSession, part_of
from toolkit.bisect.layers import Cuts, Layer, groups
from toolkit.metrics.error import noise_to_signal, rms


class Stream:
    """A graph that runs some nodes at a time, once for each sample. Memory holds only the values that are still needed;
    each weight is read once, from its mapped file."""

    def __init__(self, model: ir.Model, folder: Path, samples: Sequence[Mapping[str, Array]], threads: int) -> None:
        """samples: the inputs of the graph by name, for each sample. folder: that of the graph's external weights."""
        self._model = model
        self._folder = folder
        self._threads = threads
        self._nodes = list(model.graph)
        index = {node: i for i, node in enumerate(self._nodes)}
        # A value that a subgraph of a node reads is kept to the end: the position of such a use is not known.
        values = (*model.graph.inputs, *(value for node in self._nodes for value in node.outputs))
        self._last = {v: max((index.get(use.node, len(index)) for use in v.uses()), default=-1) for v in values}
        self._values = {value: [feeds[str(value.name)] for feeds in samples] for value in model.graph.inputs}
        self._at = 0

    def advance(self, end: int, wanted: Collection[ir.Value]) -> dict[str, list[Array]]:
        """Run the nodes from the present position up to, but not including, the node at index `end`.

        Returns the values of `wanted` that these nodes compute: name -> one array for each sample.
        """
        nodes = self._nodes[self._at : end]
        made = [value for node in nodes for value in node.outputs]
        passing = [value for value in made if self._last[value] >= end]
        outputs = list(dict.fromkeys([*passing, *(value for value in made if value in wanted)]))
        read = {value for node in nodes for value in node.inputs}
        inputs = [value for value in self._values if value in read or self._last[value] >= len(self._nodes)]
        results = self._run(inputs, outputs) if outputs else {}
        self._values |= {value: results[value] for value in passing}
        self._values = {value: arrays for value, arrays in self._values.items() if self._last[value] >= end}
        self._at = end
        return {str(value.name): results[value] for value in made if value in wanted}

    def _run(self, inputs: list[ir.Value], outputs: list[ir.Value]) -> dict[ir.Value, list[Array]]:
        part = OnnxPartSession(part_of(self._model, inputs, outputs), self._folder, self._threads)
        by_name = {str(value.name): self._values[value] for value in inputs}
        runs = [part.run(dict(zip(by_name, arrays, strict=True))) for arrays in zip(*by_name.values(), strict=True)]
        return {value: [run[str(value.name)] for run in runs] for value in outputs}


# The most memory for the results of one group of layers, of reference and candidate together. Results that later layers
# read come on top.
LIMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class LayerError:
    """The two errors of a layer; toolkit.bisect.result.LayerReport explains them."""

    layer: Layer
    inherited: float
    introduced: float


@dataclass(frozen=True)
class Worst:
    """The layer that introduces the largest error, and the sample on which its error is largest.

    sample: the index of that sample; introduced: the error on that sample alone; feeds: the reference's values of the
    layer's inputs on it, by name.
    """

    measured: LayerError
    sample: int
    introduced: float
    feeds: Mapping[str, Array]


def measure_layers(
    reference: ir.Model,
    folder: Path,
    cuts: Cuts,
    samples: Sequence[Mapping[str, Array]],
    threads: int,
    progress: Callable[[str], None],
    limit_bytes: int = LIMIT_BYTES,
) -> tuple[list[LayerError], Worst | None]:
    """Measure every layer on some samples. Returns the errors of all layers, and the worst layer (None if there is no
    layer). `folder` is that of the reference file.

    The reference runs once, some layers at a time. Each layer of the candidate is loaded alone and runs twice a sample:
    on the reference's inputs of the layer, and on the results of the candidate's own layers before it. So the candidate
    is never loaded whole.
    """
    run = _Run(cuts, samples)
    stream = Stream(reference, folder, samples, threads)
    for group in groups(cuts.layers, limit_bytes // len(samples)):
        progress(f"running the reference to {group[-1].match.name}")
        run.expected |= stream.advance(group[-1].index + 1, {layer.value for layer in group})
        for layer in group:
            progress(f"layer {len(run.done) + 1} of {len(cuts.layers)}: {layer.match.name}")
            run.measure(layer, threads)
    return run.done, run.worst


class _Run:
    """The state of a measurement: the errors so far and, for each sample, the values that later layers read."""

    def __init__(self, cuts: Cuts, samples: Sequence[Mapping[str, Array]]) -> None:
        self.done: list[LayerError] = []
        self.worst: Worst | None = None
        self.expected = {match.name: [feeds[match.name] for feeds in samples] for match in cuts.inputs}
        self._got = {match.name: [match.to_stored(feeds[match.name]) for feeds in samples] for match in cuts.inputs}
        self._last = _last_readers(cuts.layers)
        self._sizes: dict[str, float] = {}
        self._samples = range(len(samples))

    def measure(self, layer: Layer, threads: int) -> None:
        """Run a layer on the reference's and on the candidate's own inputs, and add its errors to `done`."""
        match, expected = layer.match, self.expected[layer.match.name]
        given = [{m.stored.name: m.to_stored(self.expected[m.name][i]) for m in layer.inputs} for i in self._samples]
        own = [{m.stored.name: self._got[m.name][i] for m in layer.inputs} for i in self._samples]
        results = [made[match.stored.name] for made in layer.part.run([*given, *own], threads)]
        alone, chained = results[: len(given)], results[len(given) :]
        size = max((self._rms(m.name) for m in layer.inputs if m.dtype.startswith("float")), default=0.0)
        inherited, introduced = (
            noise_to_signal([match.from_stored(one) for one in got], expected, size) for got in (chained, alone)
        )
        self.done.append(LayerError(layer, inherited, introduced))
        if self.worst is None or introduced > self.worst.measured.introduced:
            each = [noise_to_signal([match.from_stored(alone[i])], [expected[i]], size) for i in self._samples]
            worst = each.index(max(each))
            feeds = {m.name: self.expected[m.name][worst] for m in layer.inputs}
            self.worst = Worst(self.done[-1], worst, each[worst], feeds)
        self._got[match.name] = chained
        for values in (self.expected, self._got):
            for read in (*(m.name for m in layer.inputs), match.name):
                if self._last.get(read, 0) <= len(self.done):
                    values.pop(read, None)

    def _rms(self, name: str) -> float:
        """Return the RMS of a reference tensor, for the sample on which it is largest."""
        if name not in self._sizes:
            self._sizes[name] = max(rms(values) for values in self.expected[name])
        return self._sizes[name]


def _last_readers(layers: Sequence[Layer]) -> dict[str, int]:
    """Return, for each tensor, the number (from 1) of the last layer that reads it."""
    return {match.name: number for number, layer in enumerate(layers, 1) for match in layer.inputs}
