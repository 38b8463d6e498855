"""`toolkit compare` of the kinds that are not a watermark's: on tiny bundles, and each judge on its own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backends.bundle import Bundle
from backends.errors import NotAvailable
from tests.kinds_tiny import LOWERED, converted
from toolkit.cli import main
from toolkit.images.samples import text_pages
from toolkit.metrics import judges as vectors
from toolkit.metrics.judges import ChoiceJudge, Drawn, VectorJudge
from toolkit.metrics.limit import Limit
from toolkit.metrics.samples import Sample
from toolkit.models.foveated.compare import END_TO_END, _PassesJudge
from toolkit.parity import compare as compare_module
from toolkit.parity.compare import compare_bundle

REAL = Sample("a page", "real", {}, None)
NOISE = Sample("noise", "synthetic", {}, None)
WHOLE = {
    "deepencoder": {"gundam": {("onnx", "fp32")}},
    "foveated": {"two passes, shallow": {("onnx", "fp32")}, "two passes, deep": {("onnx", "fp32")}},
    "captioner": {
        "caption": {(format, p) for format in ("onnx", "tflite") for p in ("fp32", "int8", "int8-static")},
        "losses": {("onnx", "fp32")},
    },
}


@pytest.mark.parametrize("kind", LOWERED)
def test_every_file_and_every_whole_of_a_good_bundle_passes(kind: str, tmp_path: Path) -> None:
    bundle, out = converted(kind), tmp_path / "parity.json"
    shown = CliRunner().invoke(main, ["compare", str(bundle.folder), "--json", str(out)], catch_exceptions=False)
    assert shown.exit_code == 0, shown.stdout
    document = json.loads(out.read_text())
    roles = {role["role"]: role for role in document["roles"]}
    assert roles.keys() == {artifact.role for artifact in bundle.artifacts}
    for name, role in roles.items():
        assert role["samples"]["real"] > 0
        assert role["samples"]["synthetic"] > 0
        files = {(file["format"], file["precision"]) for file in role["files"]}
        made = ("onnx", "tflite") if name in LOWERED[kind] else ()
        assert files >= {("onnx", "fp32"), *((format, p) for format in made for p in ("int8", "int8-static"))}
        assert all(file["reason"] and any(check["passed"] for check in file["checks"]) for file in role["files"])
    runs = {w["name"]: {(run["format"], run["precision"]) for run in w["runs"]} - {("torch", "fp32")}
            for w in document["wholes"]}  # fmt: skip
    assert runs == WHOLE[kind]
    assert f"{bundle.model['name']}: " in shown.stdout
    assert all(name in shown.stdout for name in runs)


def _with_int8_as(bundle: Bundle, role: str, precision: str) -> Bundle:
    """A bundle whose INT8 file of a role claims to be another precision; of the others there is torch and ONNX."""
    kept = [a for a in bundle.artifacts if a.precision == "fp32" and a.format in ("torch", "onnx")]
    return replace(bundle, artifacts=(*kept, replace(bundle.find(role, "tflite", "int8"), precision=precision)))


@pytest.mark.parametrize(
    ("kind", "role", "number"),
    [("deepencoder", "base", "mean_cosine"), ("foveated", "language", "mean_cosine"),
     ("captioner", "decode_image", "psnr_db"), ("captioner", "encode_image", "mean_cosine")],
)  # fmt: skip
def test_a_file_that_is_not_what_its_precision_says_fails_by_its_judge_too(kind: str, role: str, number: str) -> None:
    bundle = _with_int8_as(converted(kind), role, "fp32")
    alone = replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.role == role or a.format != "torch"))
    report = compare_bundle(alone)
    (file,) = (file for r in report.roles for file in r.files if file.artifact.format == "tflite")
    assert {check.number for check in file.failures} >= {"of_range", number}
    assert not report.passed


def test_a_whole_that_differs_fails_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = converted("captioner")
    half = replace(
        bundle, artifacts=tuple(a for a in bundle.artifacts if a.format != "tflite" and a.precision == "fp32")
    )
    monkeypatch.setattr("toolkit.models.captioner.runner.Captioner.caption", _other_caption)
    report = compare_bundle(half)
    (caption,) = (whole for whole in report.wholes if whole.name == "caption")
    assert [check.number for run in caption.runs for check in run.failures] == ["captions_changed"]
    assert all(file.passed for role in report.roles for file in role.files)
    assert not report.passed


def _other_caption(captioner: object, *arguments: object) -> object:
    from toolkit.models.captioner.runner import Caption

    backend = captioner.graphs.backend  # type: ignore[attr-defined]  # a Captioner
    return Caption((3, 4 if backend == "ort" else 5), 0.0)


def test_a_precision_that_no_whole_has_limits_for_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = converted("captioner")
    renamed = tuple(replace(a, precision="mixed") if a.precision == "int8" else a for a in bundle.artifacts)
    monkeypatch.setattr(compare_module, "open_session", None)
    with pytest.raises(NotAvailable, match="no tolerance is written down for kind 'captioner'"):
        compare_bundle(replace(bundle, artifacts=renamed))


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
    monkeypatch.setattr(vectors, "MOST_IMAGES", 20)
    monkeypatch.setattr(vectors, "MOST_COSINES", 30)
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


def test_two_passes_are_judged_by_the_worse_of_both() -> None:
    ones, looks = np.ones((2, 1, 2, 2), np.float32), np.eye(4, dtype=np.float32)[:2].reshape(2, 2, 2)
    expected = {"coarse": ones, "fine": ones, "coarse_attention": looks, "fine_attention": looks}
    judge = _PassesJudge()
    judge.add(REAL, {**expected, "fine": ones * np.float32(1.5), "fine_attention": looks[::-1]}, expected)
    assert judge.numbers() == {"latent_max_abs": 0.5, "latent_error": 0.5, "attention_changed": 0.5}
    assert [whole.graphs[1] for whole in END_TO_END] == ["query_shallow", "query_deep"]


def test_a_limit_is_a_most_or_a_least() -> None:
    least = Limit("cosine", None, needs_training=False, at_least=0.9)
    assert [least.allows(value) for value in (0.95, 0.85, float("nan"))] == [True, False, False]
    for limits in ({"at_most": None}, {"at_most": 1.0, "at_least": 0.0}):
        with pytest.raises(ValueError, match="expected a most or a least"):
            Limit("cosine", needs_training=False, **limits)


def test_pages_of_text_are_the_same_every_time_and_have_text_on_them() -> None:
    first, again = text_pages(), text_pages()
    assert first.keys() == {"a letter", "two columns", "a table"}
    for name, page in first.items():
        assert page.tobytes() == again[name].tobytes()
        assert 0.01 < (np.asarray(page.convert("L")) < 128).mean() < 0.3
