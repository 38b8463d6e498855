"""`toolkit compare` of the kinds that are not a watermark's, on tiny bundles."""

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
from toolkit.metrics.samples import Sample
from toolkit.models.foveated.compare import END_TO_END, _PassesJudge
from toolkit.parity import compare as compare_module
from toolkit.parity.compare import compare_bundle

REAL = Sample("a page", "real", {}, None)
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
    with pytest.raises(NotAvailable, match="no tolerance for kind 'captioner', .* states no limit for 'mean_cosine'"):
        compare_bundle(replace(bundle, artifacts=renamed))


def test_two_passes_are_judged_by_the_worse_of_both() -> None:
    ones, looks = np.ones((2, 1, 2, 2), np.float32), np.eye(4, dtype=np.float32)[:2].reshape(2, 2, 2)
    expected = {"coarse": ones, "fine": ones, "coarse_attention": looks, "fine_attention": looks}
    judge = _PassesJudge()
    judge.add(REAL, {**expected, "fine": ones * np.float32(1.5), "fine_attention": looks[::-1]}, expected)
    assert judge.numbers() == {"latent_max_abs": 0.5, "latent_error": 0.5, "attention_changed": 0.5}
    assert [whole.graphs[1] for whole in END_TO_END] == ["query_shallow", "query_deep"]


def test_pages_of_text_are_the_same_every_time_and_have_text_on_them() -> None:
    first, again = text_pages(), text_pages()
    assert first.keys() == {"a letter", "two columns", "a table"}
    for name, page in first.items():
        assert page.tobytes() == again[name].tobytes()
        assert 0.01 < (np.asarray(page.convert("L")) < 128).mean() < 0.3
