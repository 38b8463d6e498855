"""Judges by name: the text that chooses one, the outputs that it reads, its limits, and the samples that it counts."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from backends.errors import InvalidInput, NotAvailable
from backends.precision import RECIPES
from backends.tensor import Array, TensorSpec
from toolkit.metrics.judges import ADVISORY, EmbeddingJudge, NoJudge, RealFirst
from toolkit.metrics.limit import Limit
from toolkit.metrics.samples import Sample
from toolkit.metrics.task import ENOUGH, JUDGES, JudgeChoice, TaskJudge, counted_line, is_enough

REAL, NOISE = (Sample("x", family, {}, None) for family in ("real", "synthetic"))
LOGITS = TensorSpec("logits", (1, 10), "float32", None)
SPECS = (LOGITS, TensorSpec("map", (1, 4, 8, 8), "float32", None), TensorSpec("best", (1,), "int64", None))


@pytest.mark.parametrize(
    ("text", "name", "setting", "outputs", "written"),
    [
        ("top1", "top1", 0, (), "top1"),
        ("top1:logits", "top1", 0, ("logits",), "top1:logits"),
        ("topk=3:y/out:0", "topk", 3, ("y/out:0",), "topk=3:y/out:0"),
        ("topk", "topk", 5, (), "topk=5"),
        ("argmax-sequence=-1", "argmax-sequence", -1, (), "argmax-sequence=-1"),
        ("boxes=0.75:a,b,c", "boxes", 0.75, ("a", "b", "c"), "boxes=0.75:a,b,c"),
        ("mask-iou:m", "mask-iou", 0.9, ("m",), "mask-iou=0.9:m"),
        ("tensor", "tensor", 0, (), "tensor"),
    ],
)
def test_a_text_chooses_a_judge_and_is_written_again(
    text: str, name: str, setting: float, outputs: tuple[str, ...], written: str
) -> None:
    choice = JudgeChoice.parse(text)
    assert (choice.judge.name, choice.setting, choice.outputs) == (name, setting, outputs)
    assert str(choice) == written
    assert JudgeChoice.parse(written) == choice


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("top2", NotAvailable, "no judge named 'top2'; there is argmax-sequence, boxes, embedding-cosine, mask-iou, "),
        ("", NotAvailable, "no judge named ''; there is argmax-sequence"),
        ("top1=1", InvalidInput, "judge 'top1=1': top1 has no setting"),
        ("topk=0", InvalidInput, "judge 'topk=0': K: expected a whole number from 1, got '0'"),
        ("topk=2.5", InvalidInput, "K: expected a whole number from 1, got '2.5'"),
        ("topk=:y", InvalidInput, "K: expected a whole number from 1, got ''"),
        ("boxes=1.5", InvalidInput, "the least IoU of boxes that match: expected a number from 0 to 1, got '1.5'"),
        ("boxes=nan", InvalidInput, "expected a number from 0 to 1, got 'nan'"),
        ("argmax-sequence=none", InvalidInput, "the label of the blank: expected a whole number, got 'none'"),
    ],
)
def test_another_text_is_refused_in_one_sentence(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        JudgeChoice.parse(text)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "written"),
    [("top1", "top1:logits"), ("mask-iou", "mask-iou=0.9:map"), ("tensor", "tensor"), ("top1:logits", "top1:logits")],
)
def test_the_only_output_that_a_judge_can_read_need_not_be_named(text: str, written: str) -> None:
    chosen = JudgeChoice.parse(text).among([spec for spec in SPECS if written != "mask-iou=0.9:map" or spec != LOGITS])
    assert str(chosen) == written


def test_all_outputs_together_are_those_of_a_judge_of_several() -> None:
    pair = (TensorSpec("boxes", (1, 20, 4), "float32", None), TensorSpec("scores", (1, 20, 3), "float32", None))
    assert JudgeChoice.parse("boxes").among(pair).outputs == ("boxes", "scores")
    assert JudgeChoice.parse("boxes").among(
        (*pair[:1], LOGITS, TensorSpec("y", (1, 9, 99), "float32", None))
    ).outputs == ("y",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "top1:probabilities",
            "judge top1:probabilities: there is no output 'probabilities'; the graph has logits float",
        ),
        ("top1:logits,map", "judge top1:logits,map: expected 1 outputs, got 2"),
        ("top1:map", r"judge top1:map: output 'map': expected float scores .*, got float32 \[1, 4, 8, 8\]"),
        ("top1:best", r"output 'best': expected float scores .*, got int64 \[1\]"),
        ("topk=10:logits", "output 'logits': expected float scores of more than 10 classes"),
        (
            "embedding-cosine",
            "judge embedding-cosine: name the output, as in embedding-cosine:NAME; the graph has logits",
        ),
        ("embedding-cosine:best", r"output 'best': expected float vectors \(..., dim\), got int64 \[1\]"),
        ("boxes", "name the output, as in boxes=0.5:NAME"),
        ("tensor:logits", "judge tensor:logits: expected 0 outputs, got 1"),
    ],
)
def test_outputs_that_are_not_there_or_cannot_be_read_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        JudgeChoice.parse(text).among(SPECS)


def test_the_reason_why_the_only_output_cannot_be_read_is_told() -> None:
    with pytest.raises(
        InvalidInput, match="judge topk=12:logits: output 'logits': expected float scores of more than 12"
    ):
        JudgeChoice.parse("topk=12").among([LOGITS])


# Judge -> number -> its limit in fp32, fp16, int8 and int8-static; a lowest value for cosines.
LIMITS = {
    "top1": {"labels_changed": (0, 0.01, 0.05, 0.1)},
    "topk": {"labels_changed": (0, 0.01, 0.05, 0.1)},
    "argmax-sequence": {"characters_changed": (0, 0.01, 0.05, 0.1), "strings_changed": (0, 0.2, 0.65, 0.9)},
    "boxes": {"boxes_changed": (0, 0.01, 0.05, 0.1)},
    "mask-iou": {"masks_changed": (0, 0.01, 0.05, 0.1)},
    "embedding-cosine": {"mean_cosine": (0.999999, 0.9999, 0.995, 0.98), "lost": (0, 0.001, 0.01, 0.04)},
    "tensor": {},
}


def test_every_judge_of_this_project_is_listed_here() -> None:
    assert LIMITS.keys() <= set(JUDGES.names)
    assert {judge.name for judge in JUDGES.installed()} == set(JUDGES.names)


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_of_a_judge_follow_from_the_precision(name: str) -> None:
    for index, precision in enumerate(("fp32", "fp16", "int8", "int8-static")):
        limits = JUDGES.load(name).limits(RECIPES[precision])
        bounds = {one.number: one.at_most if one.at_least is None else one.at_least for one in limits}
        assert bounds == {number: values[index] for number, values in LIMITS[name].items()}
        shares = [one for one in limits if one.number.endswith("_changed")]
        assert all(one.needs_training == (precision != "fp32") for one in shares)


def _recorded(seen: list[str]) -> NoJudge:
    class Recorder(NoJudge):
        def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
            assert sample.family == "real"
            seen.append(sample.name)

        def numbers(self) -> dict[str, float]:
            return {"seen": len(seen)}

    return Recorder()


def _samples(*families: str) -> Iterator[Sample]:
    yield from (Sample(f"{family} {index}", family, {}, None) for index, family in enumerate(families))


@pytest.mark.parametrize(
    ("families", "counted", "uncounted"),
    [
        (("synthetic", "real", "synthetic", "marked"), 2, {}),
        (("real",), 1, {}),
        (("synthetic", "synthetic"), 2, {"seen": ADVISORY}),
        ((), 0, {"seen": ADVISORY}),
    ],
)
def test_real_samples_count_and_synthetic_ones_only_without_them(
    families: tuple[str, ...], counted: int, uncounted: dict[str, str]
) -> None:
    judge = RealFirst(lambda: _recorded([]))
    for sample in _samples(*families):
        judge.add(sample, {}, {})
    assert judge.numbers() == {"seen": counted}
    assert judge.uncounted() == uncounted
    assert judge.details() == {"on": "synthetic" if uncounted else "real"}


def test_vectors_are_counted_in_words_too() -> None:
    judge = EmbeddingJudge(TensorSpec("tokens", (1, 4, 6), "float32", None))
    tokens = np.eye(4, 6, dtype=np.float32)[None]
    judge.add(REAL, {"tokens": tokens[:, [1, 0, 2, 3]]}, {"tokens": tokens})
    assert judge.numbers() == {"mean_cosine": 0.5, "lost": 0.5}
    assert counted_line(judge.details()) == "vectors lost 2 of 4"


def test_counts_are_told_in_words_and_enough_of_them_decide() -> None:
    def details(of: int, on: str = "real") -> dict[str, Any]:
        return {"counted": {"labels changed": [3, of], "others": [0, 1]}, "on": on}

    assert counted_line(details(300)) == "labels changed 3 of 300, others 0 of 1"
    assert counted_line({}) is None
    assert [is_enough(details(of)) for of in (ENOUGH - 1, ENOUGH)] == [False, True]
    assert not is_enough(details(300, "synthetic"))
    assert not is_enough({"on": "real"})


def test_a_judge_of_another_package_is_chosen_and_given_its_outputs() -> None:
    def make(specs: Any, setting: float) -> NoJudge:
        assert ([spec.name for spec in specs], setting) == (["map"], 0.0)
        return NoJudge()

    depth = TaskJudge("depth", "depths", make, lambda recipe: (Limit("depths_changed", 0.1, needs_training=False),))
    JUDGES.add("depth", depth)
    try:
        choice = JudgeChoice.parse("depth:map").among(SPECS)
        assert isinstance(choice.new(SPECS), NoJudge)
    finally:
        del JUDGES._added["depth"]
