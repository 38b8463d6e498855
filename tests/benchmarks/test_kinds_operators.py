"""The counts of operators are of graphs whose weights are nothing but zeros, and the same as of others."""

import pytest

from benchmarks.kinds_operators import CHAINS, chained, stages
from tests.kinds_tiny import SPECS, exported, operators


@pytest.mark.parametrize(
    ("kind", "role"), [("deepencoder", "base"), ("foveated", "query_deep"), ("captioner", "decode_text_step")]
)
def test_every_stage_is_counted_and_no_chain_is_left_of_any(kind: str, role: str) -> None:
    counts = stages(SPECS[kind].graph(role))
    assert list(counts) == ["exported", "prepared", "lowered"]
    assert counts["prepared"] == dict(operators(exported(kind), role))
    assert counts["exported"].keys() != counts["prepared"].keys()
    assert chained(counts["prepared"]) == chained(counts["lowered"]) == 0
    assert "LayerNormalization" not in counts["lowered"]  # TFLite has no kernel for it
    assert chained({CHAINS[0]: 2, "Gemm": 7}) == 2
