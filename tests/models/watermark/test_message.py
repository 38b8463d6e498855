"""A message reads the same in every form, at any length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidInput
from toolkit.models.watermark.message import Message

messages = st.lists(st.integers(0, 1), min_size=1, max_size=1100).map(lambda bits: Message(tuple(bits)))


@given(messages)
def test_every_form_comes_back(message: Message) -> None:
    n = len(message)
    assert Message.from_hex(message.hex, n) == message
    assert Message.from_hex(message.hex.upper(), n) == message
    assert Message.from_int(message.int, n) == message
    assert Message.from_bytes(message.bytes, n) == message
    assert len(message.hex) == (n + 3) // 4
    assert len(message.bytes) == (n + 7) // 8


def test_bit_0_is_the_most_significant() -> None:
    message = Message((1, 0, 1, 0, 0, 0, 0, 1))
    assert (message.hex, message.int, message.bytes, str(message)) == ("a1", 0xA1, b"\xa1", "a1")
    assert Message((1, 0, 1)).hex == "5"
    assert Message.from_hex("0001", 16).bits[-1] == 1


@pytest.mark.parametrize("text", ["", "a", "abc", "0xa", "g1", "a1 ", "-1", "+1", "1_", "\u0661\u0661"])
def test_text_that_is_not_the_hex_of_8_bits_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected 2 hex digits for 8 bits"):
        Message.from_hex(text, 8)


def test_values_that_do_not_fit_are_refused() -> None:
    for value in (-1, 32):
        with pytest.raises(InvalidInput, match=r"0 to 2\^5 - 1"):
            Message.from_int(value, 5)
    with pytest.raises(InvalidInput, match=r"0 to 2\^5 - 1"):
        Message.from_hex("20", 5)
    with pytest.raises(InvalidInput, match="expected 1 bytes for 5 bits, got 2"):
        Message.from_bytes(b"12", 5)
    with pytest.raises(InvalidInput, match="at least 1 bit"):
        Message(())
    with pytest.raises(InvalidInput, match="bits of 0 and 1, got 2"):
        Message((0, 2))


def test_random_messages_differ_and_have_the_length() -> None:
    drawn = {Message.random(64) for _ in range(20)}
    assert len(drawn) == 20
    assert {len(message) for message in drawn} == {64}


def test_a_seed_decides_the_bits_that_are_drawn() -> None:
    first, again, other = (Message.drawn(64, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 64
