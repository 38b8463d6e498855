"""Every limit that a verdict rests on, at its border: a file just inside passes, one just outside fails."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import NotAvailable
from backends.precision import RECIPES
from toolkit.metrics.error import OutputMetrics, RunningMetrics
from toolkit.metrics.judges import NoJudge
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.metrics.samples import Sample
from toolkit.models.kind import find_kind
from toolkit.models.watermark.judge import MessageJudge
from toolkit.models.watermark.message import Message
from toolkit.parity.report import judge
from toolkit.parity.stream import Comparison, RunningComparison

# "kind role" -> precision -> number -> its limit, as published. A limit is changed here and there, and by a reviewer.
PUBLISHED = json.loads((Path(__file__).parents[1] / "golden" / "limits.json").read_text(encoding="utf-8"))
CASES = [(*key.split(" ", 1), precision) for key, table in PUBLISHED.items() for precision in table]
LEAST = {"mean_cosine", "psnr_db"}


def _metrics(dtype: str) -> OutputMetrics:
    running = RunningMetrics()
    for index in range(2):
        values = np.arange(4).astype(dtype) + index
        running.add("x", values, values)
    return running.result()


def _limits(tolerance: Tolerance) -> dict[str, Limit]:
    return {limit.number: limit for limit in (*tolerance.outputs, *tolerance.task)}


def _failed(metrics: OutputMetrics, numbers: dict[str, float], tolerance: Tolerance) -> list[str]:
    checks = judge(Comparison("reference", {"y": metrics}, numbers, {}, {}), tolerance, random=False)
    return [check.number for check in checks if check.passed is not True]


@pytest.mark.parametrize(("kind", "role", "precision"), CASES)
def test_the_limits_are_the_published_ones(kind: str, role: str, precision: str) -> None:
    tolerance = find_kind(kind).tolerance(role, precision)
    limits = _limits(tolerance).items()
    bounds = {name: limit.at_least if limit.at_most is None else limit.at_most for name, limit in limits}
    assert bounds | {"changed": tolerance.changed} == pytest.approx(PUBLISHED[f"{kind} {role}"][precision], rel=1e-4)
    assert {name for name, limit in limits if limit.at_least is not None} == LEAST & bounds.keys()


@pytest.mark.parametrize(("kind", "role"), [key.split(" ", 1) for key in PUBLISHED])
def test_no_other_precision_is_judged(kind: str, role: str) -> None:
    missing = RECIPES.keys() - PUBLISHED[f"{kind} {role}"].keys()
    assert all(_is_refused(kind, role, precision) for precision in missing)


def _is_refused(kind: str, role: str, precision: str) -> bool:
    with pytest.raises(NotAvailable, match=f"precision '{precision}', so nothing is judged"):
        find_kind(kind).tolerance(role, precision)
    return True


@pytest.mark.parametrize(("kind", "role", "precision"), CASES)
def test_each_number_fails_just_outside_its_limit_and_no_other_does(kind: str, role: str, precision: str) -> None:
    tolerance = find_kind(kind).tolerance(role, precision)
    published = dict(PUBLISHED[f"{kind} {role}"][precision])
    changed = published.pop("changed")
    inside = {name: limit * (1 + 1e-4 if name in LEAST else 1 - 1e-4) for name, limit in published.items()}
    metrics, whole = replace(_metrics("float32"), max_abs=1.0), _metrics("int64")

    def failed(values: dict[str, float]) -> list[str]:
        outputs = {limit.number: values[limit.number] for limit in tolerance.outputs}
        return _failed(replace(metrics, **outputs), {n: v for n, v in values.items() if n not in outputs}, tolerance)

    assert failed(inside) == []
    for name, limit in published.items():
        beyond = limit * 0.999 if name in LEAST else limit * 1.001 + 1e-9
        assert failed(inside | {name: beyond}) == [name]
    numbers = {limit.number: inside[limit.number] for limit in tolerance.task}
    assert _failed(replace(whole, changed=changed), numbers, tolerance) == []
    if changed < 1:
        assert _failed(replace(whole, changed=changed * 1.001 + 1e-9), numbers, tolerance) == ["changed"]


@pytest.mark.parametrize(
    ("off_by", "rounded", "judged"),
    [
        (1, {"y"}, ("max_abs", True)),
        (2, {"y"}, ("relative_l2", True)),
        (30, {"y"}, ("relative_l2", False)),
        (1, {"other"}, ("changed", False)),
    ],
)
def test_a_rounded_integer_may_be_the_next_one_and_further_off_as_floats_may(
    off_by: int, rounded: set[str], judged: tuple[str, bool]
) -> None:
    tolerance = replace(find_kind("tensor").tolerance("model", "int8"), rounded=frozenset(rounded))
    running = RunningComparison("reference", NoJudge())
    expected = np.arange(100, 200, dtype=np.uint8)[None]
    running.add(Sample("x", "real", {}, None), {"y": (expected + off_by).astype(np.uint8)}, {"y": expected})
    (check,) = [check for check in judge(running.result(), tolerance, random=False) if "not_finite" not in check.number]
    assert (check.number, check.passed) == judged


@pytest.mark.parametrize(
    ("details", "uncounted", "passed"),
    [
        ({"counted": {"labels changed": [0, 20]}, "on": "real"}, {}, None),
        ({"counted": {"labels changed": [0, 19]}, "on": "real"}, {}, False),
        ({"counted": {"labels changed": [0, 20]}, "on": "synthetic"}, {}, False),
        ({"counted": {"labels changed": [0, 20]}, "on": "real"}, {"labels_changed": "nothing was read"}, False),
        ({}, {}, False),
    ],
)
def test_answers_decide_instead_of_the_error_only_where_enough_real_ones_were_counted(
    details: dict[str, Any], uncounted: dict[str, str], passed: bool | None
) -> None:
    limits = (Limit("labels_changed", 0.05, needs_training=False),)
    tolerance = replace(find_kind("tensor").tolerance("model", "int8"), task=limits, decided=frozenset("y"))
    far = replace(_metrics("float32"), relative_l2=0.5, max_abs=1.0)
    comparison = Comparison("reference", {"y": far, "z": far}, {"labels_changed": 0.0}, uncounted, details)
    checks = {(check.where, check.number): check.passed for check in judge(comparison, tolerance, random=False)}
    assert checks["y", "relative_l2"] is passed
    assert checks["z", "relative_l2"] is False
    assert checks["y", "not_finite"] is True


@pytest.mark.parametrize(("kind", "role"), [("tensor", "model"), ("foveated", "encode_frames")])
@pytest.mark.parametrize(("largest", "passes"), [(9e-7, True), (1.1e-6, False)])
def test_an_error_that_is_all_rounding_passes_however_small_the_range(
    kind: str, role: str, largest: float, passes: bool
) -> None:
    """An output whose whole range is 7e-6 says nothing about a file that is off by 9e-7."""
    running, expected = RunningMetrics(), np.linspace(0, 7e-6, 8, dtype=np.float32)
    got = expected.copy()
    got[3] += np.float32(largest)
    running.add("x", got, expected)
    metrics, tolerance = running.result(), find_kind(kind).tolerance(role, "fp32")
    checks = judge(Comparison("reference", {"y": metrics}, {}, {}, {}), tolerance, random=False)
    (check,) = (check for check in checks if check.number in ("relative_l2", "of_range"))
    assert check.passed is passes
    assert check.note == ("no value differs by more than 1e-06, which is rounding" if passes else "")
    assert check.value is not None
    assert check.value > check.at_most  # type: ignore[operator]  # both are there


RELATIVE_ERROR = {
    "fp32": 1e-4, "fp16": 1e-2, "int8": 0.1, "int8-static": 0.2, "int8-w": 0.05, "int16x8": 0.05, "mixed": 0.05,
    "int8-full": 0.25, "bf16": 0.05,
}  # fmt: skip


def _off_by(error: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits, and logits that are off by `error` of their norm, over samples that differ from each other."""
    random = np.random.default_rng(0)
    for _ in range(20):
        expected, noise = random.standard_normal((2, 1, 65))
        noise *= error * np.linalg.norm(expected) / np.linalg.norm(noise)
        yield (expected + noise).astype(np.float32), expected.astype(np.float32)


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize(("share", "failing"), [(0.98, []), (1.02, ["relative_l2"])])
def test_a_detector_s_logits_may_be_this_far_from_the_reference(
    precision: str, share: float, failing: list[str]
) -> None:
    running = RunningComparison("reference", NoJudge())
    for got, expected in _off_by(share * RELATIVE_ERROR[precision]):
        running.add(Sample("x", "real", {}, None), {"logits": got}, {"logits": expected})
    checks = judge(running.result(), find_kind("watermark").tolerance("detector", precision), random=True)
    assert [check.number for check in checks if check.passed is False and check.where] == failing


# Of 10000 bits of marked photographs: those that may be others than the reference's, where both are as often right.
FLIPPED_BITS = {
    "fp32": 1, "fp16": 10, "int8": 100, "int8-static": 200, "int8-w": 50, "int16x8": 50, "mixed": 20,
    "int8-full": 500, "bf16": 50,
}  # fmt: skip


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("more", [0, 1])
def test_this_many_bits_may_flip(precision: str, more: int) -> None:
    bits, count = 100, 100
    judge_of_messages = MessageJudge(bits, None)
    left = FLIPPED_BITS[precision] + more
    random = np.random.default_rng(0)
    for _ in range(count):
        message = Message(tuple(random.integers(0, 2, bits).tolist()))
        expected = np.array([[1, *(4.0 if bit else -4.0 for bit in message.bits)]], np.float32)
        got = expected.copy()
        here = min(left, 8)
        left -= here
        for pair in range(here):  # one that becomes wrong for each that becomes right
            side = expected if pair % 2 else got
            side[0, 1 + pair] *= -1
        judge_of_messages.add(Sample("x", "marked", {}, message.bits), {"logits": got}, {"logits": expected})
    flipped = judge_of_messages.numbers()["bits_flipped"]
    assert flipped == (FLIPPED_BITS[precision] + more) / 10000
    (limit,) = (
        one for one in find_kind("watermark").tolerance("detector", precision).task if one.number == "bits_flipped"
    )
    assert limit.allows(flipped) == (more == 0)
