"""What a person takes from a model's outputs: answers, which are the same or not, and never nearly the same."""

from collections.abc import Callable, Mapping

import numpy as np

from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.message import Message
from toolkit.verdict import matching_bits_needed
from toolkit.watermark import WatermarkModel

# Outputs of one sample, and the message hidden in it, if any -> arrays of answers by their names.
Answers = Callable[[Mapping[str, Array], Message | None], dict[str, Array]]


def answers_of(bundle: Bundle, role: str) -> Answers:
    """How the outputs of a role of this bundle are read.

    A watermark's detector: bits, the verdict on a hidden message, and the detection channel where the model has one.
    Any other graph: integers and booleans as they are; of floats named "logits", and of an imported graph's with two
    axes, the index of the largest along the last axis. Others have no answer but their numbers.
    """
    kind = bundle.model["kind"]
    if kind == "watermark":
        return _messages(WatermarkModel.of(bundle)) if role == "detector" else lambda outputs, message: {}
    return lambda outputs, message: _choices(outputs, two_axes=kind == "tensor")


def _messages(model: WatermarkModel) -> Answers:
    needed = matching_bits_needed(model.bits)

    def read(outputs: Mapping[str, Array], message: Message | None) -> dict[str, Array]:
        logits = outputs["logits"][0]
        bits = logits[1:] > 0
        found = {"bits": bits}
        if model.detection_threshold is not None:
            found["channel"] = np.array(logits[0] > model.detection_threshold)
        if message is not None and needed is not None:
            found["verdict"] = np.array(np.count_nonzero(bits == np.array(message.bits, bool)) >= needed)
        return found

    return read


def _choices(outputs: Mapping[str, Array], two_axes: bool) -> dict[str, Array]:
    found = {}
    for name, value in outputs.items():
        if value.dtype.kind != "f":
            found[name] = value
        elif value.ndim and value.shape[-1] > 1 and (name == "logits" or (two_axes and value.ndim == 2)):
            found[f"{name}, largest"] = value.argmax(axis=-1)
    return found
