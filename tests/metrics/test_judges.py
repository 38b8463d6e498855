"""What judges the answers of real images, counted by hand."""

import numpy as np
import pytest

from toolkit.metrics import judges
from toolkit.metrics.judges import ChoiceJudge, Drawn, NoJudge, VectorJudge, WithRealError
from toolkit.metrics.samples import Sample

REAL = Sample("a page", "real", {}, None)
NOISE = Sample("noise", "synthetic", {}, None)


def test_vectors_are_judged_by_direction_and_neighbours() -> None:
    tokens = np.eye(4, 6, dtype=np.float32)[None]
    swapped = tokens[:, [1, 0, 2, 3]]
    judge = VectorJudge("tokens")
    judge.add(NOISE, {"tokens": -tokens}, {"tokens": tokens})  # synthetic ones do not count
    assert judge.uncounted().keys() == {"mean_cosine", "lost"}
    judge.add(REAL, {"tokens": 3 * tokens}, {"tokens": tokens})
    assert judge.numbers() == {"mean_cosine": 1, "lost": 0}
    judge.add(REAL, {"tokens": swapped}, {"tokens": tokens})
    assert judge.numbers() == {"mean_cosine": 0.75, "lost": 0.25}


def test_tokens_that_are_the_same_are_not_lost_to_each_other_and_nothing_is_like_nothing() -> None:
    tokens = np.ones((1, 3, 4), np.float32)
    tokens[0, 2] = 0
    judge = VectorJudge("tokens")
    judge.add(REAL, {"tokens": tokens.copy()}, {"tokens": tokens})
    assert judge.numbers() == pytest.approx({"mean_cosine": 1, "lost": 0})
    judge.add(REAL, {"tokens": np.ones_like(tokens)}, {"tokens": tokens})
    assert judge.numbers() == pytest.approx({"mean_cosine": 5 / 6, "lost": 1 / 6})


def test_single_vectors_are_told_apart_from_those_of_other_images() -> None:
    first, second = np.eye(2, dtype=np.float32)[:, None]
    judge = VectorJudge("latent")
    judge.add(REAL, {"latent": first}, {"latent": first})
    judge.add(REAL, {"latent": first}, {"latent": second})
    assert judge.numbers() == {"mean_cosine": 0.5, "lost": 0.5}


def test_any_number_of_images_is_held_in_as_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "MOST_IMAGES", 20)
    monkeypatch.setattr(judges, "MOST_COSINES", 30)
    random = np.random.default_rng(0)
    judge = VectorJudge("latent")
    for number in range(400):
        latent = random.standard_normal((1, 8), dtype=np.float32)
        judge.add(REAL, {"latent": -latent if number % 4 == 0 else latent}, {"latent": latent})
    assert (len(judge._single.rows), len(judge._cosines.rows), judge.details()["vectors"]) == (20, 30, 400)
    # The mean is of all of them; whose neighbours are nearer is counted on those that are held.
    assert judge.numbers()["mean_cosine"] == pytest.approx(0.5)
    assert 0.05 <= judge.numbers()["lost"] <= 0.5


def test_rows_are_drawn_from_all_that_were_seen() -> None:
    drawn = Drawn(1000)
    for start in range(0, 10_000, 100):
        drawn.add(np.arange(start, start + 100)[:, None])
    assert (drawn.seen, len(np.unique(drawn.rows))) == (10_000, 1000)
    # A thousandth of a chance that the mean of so many is further off.
    assert abs(drawn.rows.mean() - 5000) < 300
    few = Drawn(5)
    few.add(np.arange(3)[:, None])
    assert few.rows[:, 0].tolist() == [0, 1, 2]


def test_choices_are_counted_where_they_count() -> None:
    expected = np.eye(4, dtype=np.float32)[None]
    judge = ChoiceJudge("tokens_changed", "logits", lambda sample: np.array([True, True, False, False]))
    judge.add(REAL, {"logits": expected[:, [0, 2, 1, 1]]}, {"logits": expected})
    assert judge.numbers() == {"tokens_changed": 0.5}
    assert ChoiceJudge("tokens_changed", "logits").uncounted().keys() == {"tokens_changed"}


def test_choices_of_all_rows_count_by_default_and_only_of_real_images() -> None:
    expected = np.eye(4, dtype=np.float32)[None]
    judge = ChoiceJudge("tokens_changed", "logits")
    judge.add(NOISE, {"logits": expected[:, ::-1]}, {"logits": expected})
    assert (judge.numbers(), judge.uncounted()) == ({}, {"tokens_changed": "no sample was a real image"})
    assert judge.details() == {"choices": 0, "changed": 0}
    judge.add(REAL, {"logits": expected[:, [1, 1, 2, 3]]}, {"logits": expected})
    judge.add(REAL, {"logits": expected}, {"logits": expected})
    assert (judge.numbers(), judge.uncounted()) == ({"tokens_changed": 1 / 8}, {})
    assert judge.details() == {"choices": 8, "changed": 1}


def test_the_real_error_is_that_of_the_output_where_it_is_largest_over_all_real_images() -> None:
    judge = WithRealError(ChoiceJudge("changed", "near"))
    nothing = "no sample was a real image"
    assert judge.uncounted() == {"changed": nothing, "real_error": nothing}
    ones = np.ones((1, 4), np.float32)
    judge.add(NOISE, {"near": 9 * ones, "far": 9 * ones}, {"near": ones, "far": ones})
    assert judge.numbers() == {}
    judge.add(REAL, {"near": ones, "far": 2 * ones}, {"near": ones, "far": ones})
    judge.add(REAL, {"near": ones, "far": 3 * ones}, {"near": ones, "far": 3 * ones})
    # Of "far": a difference of 4 ones, over a reference of 4 ones and 4 threes.
    assert judge.numbers() == {"changed": 0.0, "real_error": pytest.approx((4 / 40) ** 0.5)}
    assert judge.uncounted() == {}
    assert judge.details() == {"choices": 2, "changed": 0}


def test_an_output_that_should_be_nothing_and_is_not_is_a_large_error() -> None:
    judge = WithRealError(NoJudge())
    judge.add(REAL, {"y": np.ones((1, 2), np.float32)}, {"y": np.zeros((1, 2), np.float32)})
    assert judge.numbers()["real_error"] > 1e9


def test_nothing_is_judged_by_no_judge() -> None:
    judge = NoJudge()
    judge.add(REAL, {}, {})
    assert (judge.numbers(), judge.uncounted(), judge.details()) == ({}, {}, {})


def test_the_quantiles_of_cosines_are_told() -> None:
    judge = VectorJudge("tokens")
    assert judge.details() == {}
    tokens = np.eye(4, 8, dtype=np.float32)[None]
    turned = tokens.copy()
    turned[0, 3] = -turned[0, 3]
    judge.add(REAL, {"tokens": turned}, {"tokens": tokens})
    details = judge.details()
    assert details["vectors"] == 4
    assert details["cosine_quantiles"] == pytest.approx({"0": -1, "0.01": -0.94, "0.1": -0.4, "0.5": 1})


def test_a_vector_is_lost_only_to_one_that_is_nearer_by_more_than_rounding() -> None:
    expected = np.eye(2, dtype=np.float64)[None]

    def lost(nearer: float) -> float:
        # A vector between both, by the cosine `nearer` closer to the other one.
        angle = np.pi / 4 + nearer / 2**0.5 / 1
        got = np.array([[[np.cos(angle), np.sin(angle)], [0, 1]]])
        judge = VectorJudge("tokens")
        judge.add(REAL, {"tokens": got}, {"tokens": expected})
        return judge.numbers()["lost"]

    assert [lost(nearer) for nearer in (1e-4, 1e-5, 1e-7, 0.0)] == [0.5, 0.5, 0, 0]


def test_single_vectors_and_many_of_one_image_are_counted_together() -> None:
    judge = VectorJudge("tokens")
    many = np.eye(3, dtype=np.float32)[None]
    judge.add(REAL, {"tokens": many[:, [1, 0, 2]]}, {"tokens": many})  # two of three
    for row in many[0]:
        judge.add(REAL, {"tokens": row[None]}, {"tokens": row[None]})  # none of three
    assert judge.numbers() == pytest.approx({"mean_cosine": 4 / 6, "lost": 2 / 6})


def test_the_same_rows_are_drawn_each_time() -> None:
    drawn = Drawn(4)
    drawn.add(np.arange(50)[:, None])
    assert sorted(drawn.rows[:, 0].tolist()) == [12, 40, 45, 48]


def test_each_row_of_an_output_of_three_axes_is_a_choice() -> None:
    judge = ChoiceJudge("tokens_changed", "logits")
    expected = np.zeros((1, 2, 6), np.float32)
    expected[0, :, 1] = 1
    got = expected.copy()
    got[0, 1, 5] = 2
    judge.add(Sample("x", "real", {}, None), {"logits": got}, {"logits": expected})
    assert judge.numbers() == {"tokens_changed": 0.5}
