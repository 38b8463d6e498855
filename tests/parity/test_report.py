"""Numbers against limits: what passes, what fails, and what is not judged."""

from dataclasses import replace

import numpy as np
import pytest

from backends.bundle import Bundle
from backends.errors import InvalidArtifact, NotAvailable
from backends.precision import RECIPES
from tests.tiny import FOLDER
from toolkit.metrics.judges import NoJudge
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.metrics.samples import Sample
from toolkit.models.kind import find_kind
from toolkit.parity.compare import reference_of
from toolkit.parity.report import judge
from toolkit.parity.stream import Comparison, RunningComparison

TOLERANCE = Tolerance(
    outputs=(Limit("relative_l2", 1e-2, needs_training=False),),
    changed=0.0,
    task=(Limit("bits_flipped", 0.1, needs_training=True),),
    reason="a test",
)


def _comparison(got: np.ndarray, expected: np.ndarray) -> Comparison:
    running = RunningComparison("reference", NoJudge())
    running.add(Sample("x", "real", {}, None), {"y": got}, {"y": expected})
    return replace(running.result(), numbers={"bits_flipped": 0.05})


def _failed(comparison: Comparison, random: bool = False) -> list[str]:
    return [check.number for check in judge(comparison, TOLERANCE, random) if check.passed is False]


ONES = np.ones((1, 4), np.float32)


def test_within_every_limit_nothing_fails() -> None:
    assert _failed(_comparison(ONES * np.float32(1.001), ONES)) == []


def test_each_number_over_its_limit_is_named() -> None:
    assert _failed(_comparison(ONES * np.float32(1.1), ONES)) == ["relative_l2"]
    assert _failed(replace(_comparison(ONES, ONES), numbers={"bits_flipped": 0.2})) == ["bits_flipped"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_fail_on_either_side(value: float) -> None:
    broken = ONES.copy()
    broken[0, 0] = value
    assert _failed(_comparison(broken, ONES)) == ["not_finite"]
    assert _failed(_comparison(ONES, broken)) == ["reference_not_finite"]


def test_nothing_compared_fails_and_so_does_a_number_that_nobody_gave() -> None:
    assert _failed(Comparison("reference", {}, {"bits_flipped": 0.0}, {}, {})) == ["samples"]
    assert _failed(replace(_comparison(ONES, ONES), numbers={})) == ["bits_flipped"]


def test_an_error_without_a_value_fails() -> None:
    assert _failed(_comparison(ONES, ONES * 0)) == ["relative_l2"]


def test_integers_must_be_the_same() -> None:
    whole = np.arange(4).reshape(1, 4)
    assert _failed(_comparison(whole, whole)) == []
    assert _failed(_comparison(whole + 1, whole)) == ["changed"]


def test_bits_of_random_weights_are_shown_and_not_judged_but_the_error_is() -> None:
    comparison = replace(_comparison(ONES * np.float32(1.1), ONES), numbers={"bits_flipped": 0.9})
    checks = judge(comparison, TOLERANCE, random=True)
    assert [check.number for check in checks if check.passed is False] == ["relative_l2"]
    (unjudged,) = (check for check in checks if check.passed is None)
    assert (unjudged.number, unjudged.value) == ("bits_flipped", 0.9)
    assert "random" in unjudged.note


def test_what_the_samples_could_not_give_is_said_and_not_judged() -> None:
    comparison = replace(_comparison(ONES, ONES), numbers={}, uncounted={"bits_flipped": "no sample was marked"})
    (unjudged,) = (check for check in judge(comparison, TOLERANCE, False) if check.passed is None)
    assert unjudged.note == "not judged: no sample was marked"


def test_a_detector_that_ignores_its_input_fails_however_near_it_is() -> None:
    rng = np.random.default_rng(0)
    logits = [(5 + 0.1 * rng.standard_normal((1, 9))).astype(np.float32) for _ in range(20)]
    mean = np.mean(logits, axis=0)
    running = RunningComparison("reference", NoJudge())
    for expected in logits:
        running.add(Sample("x", "real", {}, None), {"logits": mean * np.float32(1.001)}, {"logits": expected})
    checks = judge(running.result(), find_kind("watermark").tolerance("detector", "int8"), random=True)
    assert [check.number for check in checks if check.passed is False and check.where] == ["of_variation"]


def test_every_precision_of_a_detector_has_a_tolerance_with_a_reason() -> None:
    for precision in RECIPES:
        assert len(find_kind("watermark").tolerance("detector", precision).reason) > 40


def test_a_tolerance_that_nobody_wrote_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(
        NotAvailable, match="precision 'int4', so nothing is judged: no precision .*; there is bf16, fp16, fp32"
    ):
        find_kind("watermark").tolerance("detector", "int4")
    with pytest.raises(NotAvailable, match="no kind of model named 'poem'; there is captioner, deepencoder"):
        find_kind("poem").tolerance("detector", "fp32")


def test_changed_integers_are_judged_with_random_weights_too() -> None:
    ids = np.arange(4)
    assert _failed(_comparison(ids[::-1], ids), random=True) == ["changed"]


def test_a_role_without_a_float32_graph_is_named() -> None:
    (quantized,) = [a for a in Bundle.open(FOLDER).artifacts if a.file == "detector.int8.tflite"]
    with pytest.raises(InvalidArtifact, match=r"^detector: no float32 torch or ONNX file to compare with"):
        reference_of([quantized])
