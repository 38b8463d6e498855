"""Each form of an attention computes the same, so that their times can be compared."""

import pytest

from benchmarks.fused_attention import CONTRIB, STANDARD, WRITTEN, Case, measure


@pytest.mark.parametrize("mask", [False, True])
def test_every_form_computes_the_same(mask: bool) -> None:
    measured = measure(Case("small", 1, 2, 3, 5, 7, 8, mask=mask), rounds=1, threads=1)
    assert measured[WRITTEN]["of_ours"] == 1
    for name in (CONTRIB, STANDARD):
        assert measured[name]["max_abs_difference"] < 1e-5
        assert measured[name]["a_run_ms"] > 0
