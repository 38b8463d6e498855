"""Operators are counted as exported, prepared and lowered."""

import pytest

from benchmarks.kinds_operators import REMOVED, count_removed, stages
from graphs.checkpoint import random_weights
from tests.kinds_tiny import SPECS, exported, operators


@pytest.mark.parametrize(
    ("kind", "role"), [("deepencoder", "base"), ("foveated", "query_deep"), ("captioner", "decode_text_step")]
)
def test_every_stage_is_counted_and_no_operator_to_be_removed_is_left(kind: str, role: str) -> None:
    spec = SPECS[kind]
    counts = stages(spec.graph(role), random_weights(0, spec).states[role])
    assert list(counts) == ["exported", "prepared", "lowered"]
    assert counts["prepared"] == dict(operators(exported(kind), role))
    assert counts["exported"] != counts["prepared"]
    assert count_removed(counts["prepared"]) == count_removed(counts["lowered"]) == 0
    assert "LayerNormalization" not in counts["lowered"]  # TFLite has no kernel for it
    assert count_removed({REMOVED[0]: 2, "Gemm": 7}) == 2
