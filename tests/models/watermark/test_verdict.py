"""The verdict is the exact binomial tail."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidInput
from toolkit.models.watermark.message import Message, compare, matching_bits_needed, p_value


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_p_value_is_what_counting_every_message_gives(bits: int) -> None:
    expected = (1,) * bits
    for matching in range(bits + 1):
        at_least = sum(sum(drawn) >= matching for drawn in product((0, 1), repeat=len(expected)))
        assert p_value(bits, matching) == float(Fraction(at_least, 2**bits))


@pytest.mark.parametrize(("bits", "needed"), [(64, 51), (96, 72), (256, 167), (1024, 589)])
def test_bits_needed_at_one_in_a_million(bits: int, needed: int) -> None:
    assert matching_bits_needed(bits) == needed
    assert p_value(bits, needed) <= 1e-6 < p_value(bits, needed - 1)


def test_a_short_message_can_prove_nothing() -> None:
    assert matching_bits_needed(19) is None
    assert matching_bits_needed(20) == 20


@given(st.integers(1, 300), st.data())
def test_detected_is_having_the_bits_needed(bits: int, data: st.DataObject) -> None:
    expected = Message.from_int(data.draw(st.integers(0, 2**bits - 1)), bits)
    wrong = data.draw(st.sets(st.integers(0, bits - 1)))
    message = Message(tuple(bit ^ (i in wrong) for i, bit in enumerate(expected.bits)))
    match = compare(message, expected)
    needed = matching_bits_needed(bits)
    assert match.matching_bits == bits - len(wrong)
    assert match.detected == (needed is not None and match.matching_bits >= needed)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="this model has 2 bits, got 3"):
        compare(Message((0, 1)), Message((0, 1, 1)))
    for fpr in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InvalidInput, match="between 0 and 1"):
            compare(Message((0, 1)), Message((0, 1)), fpr)
    with pytest.raises(InvalidInput, match="expected 0 to 8, got 9"):
        p_value(8, 9)
