"""Bits, messages and verdicts, counted by hand."""

import numpy as np
import pytest

from toolkit.metrics.samples import Sample
from toolkit.models.watermark.judge import READINGS_KEPT, MessageJudge
from toolkit.models.watermark.message import Message

BITS = 32
HIDDEN = Message((1, 0) * 16)


def _logits(bits: tuple[int, ...], channel: float = 5.0, scale: float = 4.0) -> dict[str, np.ndarray]:
    return {"logits": np.array([[channel, *(scale if bit else -scale for bit in bits)]], np.float32)}


def _sample(message: Message | None) -> Sample:
    return Sample("x", "marked" if message else "real", {}, message and message.bits)


def _flip(bits: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(1 - bit for bit in bits[:count]) + bits[count:]


def test_flips_losses_verdicts_and_the_channel_are_shares_of_what_was_read() -> None:
    judge = MessageJudge(BITS, threshold=0.0)
    right = _logits(HIDDEN.bits)
    judge.add(_sample(HIDDEN), right, right)
    # 30 of 32 right bits are a verdict at one in a million, 29 are not.
    judge.add(_sample(HIDDEN), _logits(_flip(HIDDEN.bits, 3), channel=-1.0), _logits(_flip(HIDDEN.bits, 2)))
    judge.add(_sample(None), _logits(HIDDEN.bits, channel=1.0), _logits(HIDDEN.bits, channel=-1.0))
    assert judge.numbers() == {
        "bits_flipped": 1 / 64,
        "accuracy_loss": 1 / 64,
        "verdicts_changed": 1 / 2,
        "channel_changed": 2 / 3,
    }
    assert judge.uncounted() == {}
    details = judge.details()
    assert details["marked"]["messages_changed"] == 1
    assert details["marked"]["bits_right"] == 61 / 64
    assert details["marked"]["reference_bits_right"] == 62 / 64
    assert details["real"]["bits_flipped"] == 0


def test_a_bit_that_was_wrong_and_became_right_is_flipped_and_won() -> None:
    judge = MessageJudge(BITS, threshold=None)
    judge.add(_sample(HIDDEN), _logits(HIDDEN.bits), _logits(_flip(HIDDEN.bits, 1)))
    assert judge.numbers()["bits_flipped"] == 1 / 32
    assert judge.numbers()["accuracy_loss"] == -1 / 32


def test_how_near_zero_flipped_logits_were_is_told_in_spreads() -> None:
    judge = MessageJudge(BITS, threshold=None)
    expected = _logits(HIDDEN.bits)
    expected["logits"][0, 1], expected["logits"][0, 2] = 0.04, -0.2
    got = {"logits": expected["logits"].copy()}
    got["logits"][0, 1:3] *= -1
    judge.add(_sample(HIDDEN), got, expected)
    details = judge.details()["marked"]
    assert details["logit_rms"] == pytest.approx(4 * (30 / 32) ** 0.5, rel=1e-2)
    near = details["flipped_logits_of_rms"]
    assert near["0.5"] == pytest.approx(0.04 / details["logit_rms"], rel=0.03)
    assert near["1"] == pytest.approx(0.2 / details["logit_rms"], rel=0.03)


def test_what_could_not_be_counted_says_why_and_is_no_number() -> None:
    judge = MessageJudge(BITS, threshold=None)
    judge.add(_sample(None), _logits(HIDDEN.bits), _logits(HIDDEN.bits))
    assert judge.numbers() == {}
    assert judge.uncounted()["bits_flipped"] == "no sample was marked"
    assert judge.uncounted()["channel_changed"] == "the model did not train that channel"
    few = MessageJudge(8, threshold=0.0)
    few.add(_sample(Message((1,) * 8)), _logits((1,) * 8), _logits((1,) * 8))
    assert "verdicts_changed" not in few.numbers()
    assert few.uncounted() == {"verdicts_changed": "8 bits are too few for a verdict"}


def test_a_photograph_s_messages_are_told_with_the_bits_that_flipped_and_their_logits() -> None:
    judge = MessageJudge(BITS, threshold=None)
    got = _logits(HIDDEN.bits)
    got["logits"][0, 1 + 4] = -0.5
    judge.add(_sample(HIDDEN), got, _logits(HIDDEN.bits))
    (reading,) = judge.details()["readings"]
    assert reading == {
        "sample": "x",
        "hidden": "aaaaaaaa",
        "reference": "aaaaaaaa",
        "read": "a2aaaaaa",
        "flipped": [{"bit": 4, "reference": 4.0, "file": -0.5}],
    }


def test_however_many_photographs_are_read_a_bounded_number_is_told_bit_by_bit() -> None:
    judge = MessageJudge(BITS, threshold=None)
    for _ in range(READINGS_KEPT + 10):
        judge.add(_sample(HIDDEN), _logits(HIDDEN.bits), _logits(HIDDEN.bits))
    judge.add(Sample("noise", "synthetic", {}, None), _logits(HIDDEN.bits), _logits(HIDDEN.bits))
    assert len(judge.details()["readings"]) == READINGS_KEPT
    assert judge.details()["marked"]["readings"] == READINGS_KEPT + 10
    noise = MessageJudge(BITS, threshold=None)
    noise.add(Sample("noise", "synthetic", {}, None), _logits(HIDDEN.bits), _logits(HIDDEN.bits))
    assert noise.details()["readings"] == []
