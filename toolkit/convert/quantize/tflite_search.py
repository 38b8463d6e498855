"""Puts the layers of a static TFLite file that hurt most back to float32 until the file passes its judgement."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from graphs.tflite.graph import Graph, read_graph
from graphs.tflite.writer import write_graph
from toolkit.convert.job import Job
from toolkit.convert.outcome import Made
from toolkit.convert.quantize.static_search import put_back

_OPERATORS = schema.BuiltinOperator
_LAYERS = (_OPERATORS.FULLY_CONNECTED, _OPERATORS.CONV_2D, _OPERATORS.DEPTHWISE_CONV_2D)

# Quantizes the graph once for each variant: name -> the output tensors of the layers that compute in float32.
Write = Callable[[Mapping[str, Sequence[str]]], None]


def search_tflite(job: Job, precision: str, floats: Path, write: Write, stitched: Callable[[str], Graph]) -> Made:
    """Find the layers to put back, and leave the file of the variant `precision` quantized accordingly.

    floats: the float32 file. write: quantizes variants; the variant `precision` is written already, with every layer
    quantized. stitched: returns the whole graph of a variant.
    Returns the file that was judged last, which is not to be published. Raises as Job.tflite does.
    """
    trial = job.folder / f"trial.{precision}.tflite"
    names = [
        node.outputs[0].name
        for node in read_graph(floats).nodes
        if node.code[0] in _LAYERS and node.outputs[0] is not None and node.outputs[0].name
    ]
    written: tuple[str, ...] = ()

    def make(in_float: Collection[str]) -> Made:
        nonlocal written
        if tuple(in_float) != written:
            write({precision: list(in_float)})
            written = tuple(in_float)
        write_graph(stitched(precision), trial)
        return job.tflite(precision, "direct", trial, {})

    def alone(groups: Sequence[Sequence[str]]) -> list[float]:
        variants = {f"{precision}-{i}": [name for name in names if name not in group] for i, group in enumerate(groups)}
        job.progress(f"quantizing {len(groups)} groups of layers alone ({precision})")
        write(variants)
        reference = job.reference
        draft = replace(
            reference.artifact, file=trial.name, format="tflite", route="direct", external_files=(), axes=None
        )
        errors = []
        for variant in variants:
            write_graph(stitched(variant), trial)
            errors.append(job.bind(trial, draft, reference.feeds, reference.outputs).error)
        return errors

    try:
        return put_back(names, job.reference.artifact.bytes, make, alone)
    finally:
        trial.unlink(missing_ok=True)
