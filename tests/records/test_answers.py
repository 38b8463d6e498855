"""What counts as an answer, by kind."""

from dataclasses import replace

import numpy as np

from backends.bundle import Bundle
from toolkit.models.kind import Answers, find_kind


def answers_of(bundle: Bundle, role: str) -> Answers:
    return find_kind(bundle.model["kind"]).answers(bundle, role)


def test_a_detector_answers_with_bits_and_its_channel_and_too_few_bits_give_no_verdict(tiny: Bundle) -> None:
    logits = np.array([[0.5, -1, 2, 3, -4, 5, 6, 7, -8]], np.float32)
    answers = answers_of(tiny, "detector")({"logits": logits}, (0,) * 8)
    assert answers["bits"].tolist() == [False, True, True, False, True, True, True, False]
    assert bool(answers["channel"])
    assert "verdict" not in answers
    assert answers_of(tiny, "embedder")({"watermark": logits}, None) == {}


def test_a_hidden_message_is_found_or_not(tiny: Bundle) -> None:
    bundle = replace(tiny, model=tiny.model | {"bits": 64})
    message = (0, 1) * 32
    right = np.array([[0.0, *([-1, 1] * 32)]], np.float32)
    for logits, found in ((right, True), (-right, False)):
        assert bool(answers_of(bundle, "detector")({"logits": logits}, message)["verdict"]) is found


def test_an_imported_graph_answers_with_integers_and_the_largest_of_a_list(tiny: Bundle) -> None:
    bundle = replace(tiny, model={"name": "m", "kind": "tensor"})
    outputs = {
        "classes": np.array([[0.1, 0.7, 0.2]], np.float32),
        "map": np.zeros((1, 2, 3, 4), np.float32),
        "count": np.array([3], np.int64),
    }
    answers = answers_of(bundle, "model")(outputs, None)
    assert {name: value.tolist() for name, value in answers.items()} == {"classes, largest": [1], "count": [3]}


def test_a_decoder_of_text_answers_with_tokens_and_an_encoder_with_none(tiny: Bundle) -> None:
    bundle = replace(tiny, model={"name": "m", "kind": "captioner"})
    logits = np.array([[[0.0, 1.0], [3.0, 2.0]]], np.float32)
    answers = answers_of(bundle, "decode_text_prefill")({"logits": logits, "memory": logits}, None)
    assert {name: value.tolist() for name, value in answers.items()} == {"logits, largest": [[1, 0]]}
