"""Aligns the lines of an XNNPACK profile with the operators of a TFLite file.

XNNPACK reports the kinds of its operators and no names. They run in the order of the file, but some are fused and some
are added, so the two lists are aligned like two texts.
"""

import re
from collections.abc import Sequence
from pathlib import Path

# Kind of operator, as TFLite or XNNPACK calls it -> its family. Any other kind is a family by itself.
_SAME = {
    "CONVOLUTION": "CONV",
    "CONV_2D": "CONV",
    "DEPTHWISE_CONV_2D": "CONV",
    "DECONVOLUTION": "TRANSPOSE_CONV",
    "BATCH_MATRIX_MULTIPLY": "BATCH_MATMUL",
    "MULTIPLY": "MUL",
    "SUBTRACT": "SUB",
    "DIVIDE": "DIV",
    "SQUARE_ROOT": "SQRT",
    "RECIPROCAL_SQUARE_ROOT": "RSQRT",
    "MEAN_SQUARED": "MEAN",
    "NORMALIZE": "SUM",
    "STATIC_RESHAPE": "RESHAPE",
    "COPY": "RESHAPE",
    "SIGMOID": "LOGISTIC",
    "RELU": "CLAMP",
    "RELU6": "CLAMP",
    "CONSTANT_PAD": "PAD",
    "STATIC_CONSTANT_PAD": "PAD",
    "MIRROR_PAD": "PAD",
    "CONVERT": "QUANTIZE",
    "DEQUANTIZE": "QUANTIZE",
    "STRIDED_SLICE": "SLICE",
    "STATIC_SLICE": "SLICE",
    "CONCATENATE": "CONCATENATION",
    "BILINEAR_RESIZE": "RESIZE_BILINEAR",
    "MAX_POOLING": "MAX_POOL_2D",
    "AVERAGE_POOLING": "AVERAGE_POOL_2D",
}

# Families of operators that XNNPACK never fuses with each other: they hold the alignment in place.
_ANCHORS = ("CONV", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
_ANCHOR_WEIGHT = 16


def operator_names(path: Path, kinds: Sequence[str]) -> list[str]:
    """Return, for each line of a profile, the name of the first output of its operator in the file at `path`.

    `kinds` are the operator kinds of the profile, in running order. The name is "" for a line that fits no operator.
    """
    from ai_edge_litert import schema_py_generated as schema

    from graphs.tflite.graph import read_graph

    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    nodes = read_graph(path).nodes
    outputs = [node.outputs[0].name if node.outputs and node.outputs[0] else "" for node in nodes]
    pairs = aligned([builtin.get(node.code[0], "") for node in nodes], kinds)
    return ["" if index is None else outputs[index] for index in pairs]


def aligned(file: Sequence[str], profile: Sequence[str]) -> list[int | None]:
    """Return, for each kind of a profile, the index of its operator in `file`, or None where no operator fits.

    Both lists are in running order, and so are the indices. The alignment with the highest sum over its pairs is taken:
    an operator that XNNPACK never fuses counts 16, any other operator 1.
    """
    ours, theirs = [_family(kind) for kind in file], [_family(kind) for kind in profile]
    # best[i][j]: the highest sum for ours[i:] and theirs[j:].
    best = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i in range(len(ours) - 1, -1, -1):
        row, below, worth, mine = best[i], best[i + 1], _worth(ours[i]), ours[i]
        for j in range(len(theirs) - 1, -1, -1):
            score = below[j] if below[j] > row[j + 1] else row[j + 1]
            if mine == theirs[j] and below[j + 1] + worth > score:
                score = below[j + 1] + worth
            row[j] = score
    pairs: list[int | None] = [None] * len(theirs)
    i = j = 0
    while i < len(ours) and j < len(theirs):
        if ours[i] == theirs[j] and best[i][j] == best[i + 1][j + 1] + _worth(ours[i]):
            pairs[j] = i
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _worth(family: str) -> int:
    return _ANCHOR_WEIGHT if family in _ANCHORS else 1


def _family(kind: str) -> str:
    """Return the family of a kind of operator: "Fully Connected (NC, F32) GEMM" is FULLY_CONNECTED."""
    name = re.sub(r"\W+", "_", kind.partition(" (")[0].strip()).upper()
    return _SAME.get(name, name)
