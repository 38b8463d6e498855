"""Limits: the border itself is inside."""

import pytest

from toolkit.metrics.limit import Limit


def test_a_limit_is_a_most_or_a_least() -> None:
    least = Limit("cosine", None, needs_training=False, at_least=0.9)
    assert [least.allows(value) for value in (0.95, 0.85, float("nan"))] == [True, False, False]
    for limits in ({"at_most": None}, {"at_most": 1.0, "at_least": 0.0}):
        with pytest.raises(ValueError, match="expected a most or a least"):
            Limit("cosine", needs_training=False, **limits)


def test_the_border_itself_is_inside() -> None:
    most = Limit("error", 0.5, needs_training=False)
    least = Limit("cosine", None, needs_training=False, at_least=0.5)
    values = (0.4999, 0.5, 0.5001)
    assert [most.allows(value) for value in values] == [True, True, False]
    assert [least.allows(value) for value in values] == [False, True, True]
    nothing = Limit("flips", 0.0, needs_training=False)
    assert [nothing.allows(value) for value in (0.0, 1e-12, float("nan"))] == [True, False, False]
    assert [Limit("gain", None, needs_training=False, at_least=0.0).allows(value) for value in (0.0, -1e-12)] == [
        True,
        False,
    ]
