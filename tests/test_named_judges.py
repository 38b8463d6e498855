"""An imported graph with a judge chosen by name: kept at import, used by compare and convert, told in words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from backends.machine import Machine
from tests.foreign_graphs import toolkit
from toolkit import load
from toolkit.import_model import import_model
from toolkit.inputs.kept import with_inputs
from toolkit.metrics.task import ENOUGH, JudgeChoice
from toolkit.models.kind import kind_of
from toolkit.models.tensor import TensorKind, with_judge
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle
from toolkit.report.evidence import Evidence
from toolkit.report.page import render

CLASSES = 4
_CLASSIFIER = f"""<ir_version: 8, opset_import: ["": 17]>
g (float[1,3,16,16] x) => (float[1,{CLASSES}] scores, float[1,8] pooled) {{
  y = Conv <pads = [1, 1, 1, 1]> (x, kernel)
  positive = Relu(y)
  mean = ReduceMean <axes = [2, 3], keepdims = 0> (positive)
  pooled = Identity(mean)
  scores = MatMul(pooled, matrix)
}}"""


def _classifier(folder: Path) -> Path:
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(_CLASSIFIER)
    for name, shape in (("kernel", (8, 3, 3, 3)), ("matrix", (8, CLASSES))):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        )
    onnx.save(model, folder / "classifier.onnx")
    return folder / "classifier.onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A classifier with a judge of its labels, and its FP16 and INT8 files for ONNX Runtime."""
    work = tmp_path_factory.mktemp("judged")
    folder = work / "bundle"
    shown = toolkit("import", _classifier(work), "-o", folder, "--judge", "top1:scores")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert toolkit("convert", folder, "--runtime", "ort").exit_code in (0, 1)
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of as many images as decide alone."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(1)
    for index in range(ENOUGH):
        pixels = np.clip(random.integers(0, 256, 3) + random.integers(-60, 60, (16, 16, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
    return folder


def test_the_bundle_keeps_the_judge_with_its_output(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.model["judge"] == "top1:scores"
    single = import_model(_classifier(tmp_path), tmp_path / "again", {}, judge=JudgeChoice.parse("topk=2:scores"))
    assert single.model["judge"] == "topk=2:scores"


def test_without_real_inputs_the_counts_are_told_and_advisory(bundle: Bundle) -> None:
    shown = toolkit("compare", bundle.folder)
    text = " ".join(shown.stdout.split())
    assert shown.exit_code == 0
    assert "model.int8.onnx: labels changed " in text
    assert "on synthetic inputs (advisory)" in text
    assert "not judged: no sample was a real input" in text
    for role in compare_bundle(bundle).roles:
        for file in role.files:
            (check,) = [check for check in file.checks if check.number == "labels_changed"]
            assert (check.passed, check.value is None) == (None, False)
            assert any(check.number == "relative_l2" and check.passed for check in file.checks)


def test_with_enough_real_inputs_the_labels_decide(bundle: Bundle, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    shown = toolkit("compare", bundle.folder, "--images", images, "--json", out)
    (role,) = json.loads(out.read_text())["roles"]
    for file in role["files"]:
        checks = {(check["where"], check["number"]): check for check in file["checks"]}
        changed, of = file["total"]["details"]["counted"]["labels changed"]
        assert of == ENOUGH
        assert f"{file['name']}: labels changed {changed} of {of}" in shown.stdout
        assert checks["", "labels_changed"]["value"] == changed / of
        assert checks["", "labels_changed"]["passed"] == (changed / of <= checks["", "labels_changed"]["at_most"])
        assert checks["scores", "relative_l2"]["note"] == "not judged: the answers are judged instead"
        assert checks["pooled", "relative_l2"]["passed"] is True
    assert shown.exit_code == (0 if all(file["passed"] for file in role["files"]) else 1)


def _worse(bundle: Bundle, tmp_path: Path, name: str, change: Callable[[onnx.ModelProto], None]) -> Bundle:
    """Return the bundle, with one of its files changed."""
    from backends.bundle import sha256_of

    files = []
    for artifact in bundle.artifacts:
        path = tmp_path / artifact.file
        path.write_bytes((bundle.folder / artifact.file).read_bytes())
        if artifact.file == name:
            model = onnx.load(path)
            change(model)
            onnx.save(model, path)
        files.append(replace(artifact, sha256=sha256_of(path), bytes=path.stat().st_size))
    return replace(bundle, folder=tmp_path, artifacts=tuple(files))


def _scaled_scores(factor: float) -> Callable[[onnx.ModelProto], None]:
    """Return a change that multiplies the scores: of a negative factor, the labels are others."""

    def change(model: onnx.ModelProto) -> None:
        (node,) = [node for node in model.graph.node if "scores" in node.output]
        node.output[:] = ["scores before"]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor), "factor"))
        model.graph.node.append(onnx.helper.make_node("Mul", ["scores before", "factor"], ["scores"]))

    return change


@pytest.mark.parametrize(("factor", "passed"), [(1.5, True), (-1.0, False)])
def test_an_error_that_changes_no_label_passes_and_labels_that_change_fail(
    bundle: Bundle, images: Path, tmp_path: Path, factor: float, passed: bool
) -> None:
    pictures = sorted(images.iterdir())
    worse = _worse(bundle, tmp_path, "model.int8.onnx", _scaled_scores(factor))
    (role,) = compare_bundle(worse, pictures).roles
    (file,) = [file for file in role.files if file.artifact.precision == "int8"]
    assert file.passed is passed
    assert [check.number for check in file.failures] == ([] if passed else ["labels_changed"])
    few = compare_bundle(worse, pictures[: ENOUGH - 1]).roles[0].files
    (file,) = [file for file in few if file.artifact.precision == "int8"]
    assert "relative_l2" in [check.number for check in file.failures]


def test_another_judge_is_used_for_one_comparison(bundle: Bundle, images: Path) -> None:
    shown = toolkit("compare", bundle.folder, "--images", images, "--judge", "topk=2:scores")
    assert f"of {2 * ENOUGH}" in shown.stdout
    raw = toolkit("compare", bundle.folder, "--images", images, "--judge", "tensor")
    assert "labels" not in raw.stdout
    vectors = toolkit("compare", bundle.folder, "--images", images, "--judge", "embedding-cosine:pooled")
    assert f"vectors lost 0 of {ENOUGH}" in vectors.stdout
    assert Bundle.open(bundle.folder).model["judge"] == "top1:scores"


def test_a_conversion_is_judged_by_the_judge_of_the_bundle_or_another(bundle: Bundle) -> None:
    assert conversion_rules(bundle).check is not None
    with pytest.raises(InvalidInput, match="there is no output 'y'"):
        conversion_rules(bundle, JudgeChoice.parse("top1:y"))
    shown = toolkit("convert", bundle.folder, "--runtime", "ort", "-p", "fp16", "--judge", "mask-iou:scores,pooled")
    assert shown.exit_code == 2
    assert "judge mask-iou=0.9:scores,pooled: expected 1 outputs, got 2" in shown.stderr


@pytest.mark.parametrize("command", ["import", "compare", "convert"])
@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (
            "top2:scores",
            "no judge named 'top2'; there is argmax-sequence, boxes, embedding-cosine, mask-iou, tensor, top1",
        ),
        (
            "top1:probabilities",
            "there is no output 'probabilities'; the graph has scores float32 [1, 4], pooled float32",
        ),
        ("topk=9:scores", "output 'scores': expected float scores of more than 9 classes"),
        ("boxes=2:scores", "the least IoU of boxes that match: expected a number from 0 to 1, got '2'"),
    ],
)
def test_a_wrong_judge_is_one_line_and_2(bundle: Bundle, tmp_path: Path, command: str, judge: str, said: str) -> None:
    arguments: list[object] = (
        [_classifier(tmp_path), "-o", tmp_path / "new"] if command == "import" else [bundle.folder]
    )
    shown = toolkit(command, *arguments, "--judge", judge)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert said in shown.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_only_imported_graphs_are_judged_by_name(tiny: Bundle) -> None:
    assert kind_of(tiny).name == "watermark"
    with pytest.raises(InvalidInput, match="models of kind 'watermark' have a judge of their own"):
        with_judge(tiny, JudgeChoice.parse("top1"))


@pytest.mark.parametrize(
    ("judge", "error", "said"),
    [
        (7, InvalidArtifact, "expected judge as text"),
        ("poem", NotAvailable, "no judge named 'poem'"),
        ("top1:y", InvalidInput, "no output 'y'"),
    ],
)
def test_a_manifest_with_another_judge_is_refused(
    bundle: Bundle, judge: object, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        compare_bundle(replace(bundle, model=bundle.model | {"judge": judge}))


def test_the_page_shows_the_counts_in_words(bundle: Bundle, images: Path) -> None:
    def page(pictures: list[Path]) -> str:
        report = compare_bundle(bundle, pictures)
        return render(Evidence(bundle, report, None, (), (), Machine.here(), {"bench": "None.", "bisect": "None."}))

    counted = page(sorted(images.iterdir()))
    assert "The judge top1:scores counts labels, the largest score of each row." in counted
    assert f" of {ENOUGH}</td>" in " ".join(counted.split())
    assert "These answers decide" in counted
    assert "advisory" in page([])
    assert "Fewer than 20 answers" in page(sorted(images.iterdir())[:3])


def test_labels_beside_the_inputs_tell_how_many_answers_are_right(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((ENOUGH, 3, 16, 16)) * rng.random((ENOUGH, 3, 1, 1))).astype(np.float32)
    with load(bundle.folder) as model:
        labels = np.array([int(model.run(one[None])["scores"].argmax()) for one in x])
    labels[:5] = (labels[:5] + 1) % CLASSES
    np.savez(tmp_path / "given.npz", x=x, labels=labels)
    shown = toolkit("compare", bundle.folder, "--inputs", tmp_path / "given.npz", "--json", tmp_path / "parity.json")
    (role,) = json.loads((tmp_path / "parity.json").read_text())["roles"]
    for file in role["files"]:
        counted = file["total"]["details"]["counted"]
        right, of = counted["right by the labels given"]
        assert of == ENOUGH
        assert abs(right - (ENOUGH - 5)) <= counted["labels changed"][0]
        assert counted["right in the reference"] == [ENOUGH - 5, ENOUGH]
        assert f"right by the labels given {right} of {of}, right in the reference {ENOUGH - 5} of {of}" in " ".join(
            shown.stdout.split()
        )
    given = with_inputs(bundle, tmp_path / "given.npz", None)
    machine = Machine.here()
    page = render(Evidence(given, compare_bundle(given), None, (), (), machine, {"bench": "None.", "bisect": "None."}))
    assert "Right by the labels given" in page
    assert f"{ENOUGH - 5} of {ENOUGH}</td>" in " ".join(page.split())


@pytest.mark.parametrize(
    ("judge", "precision", "decided"),
    [
        ("top1:scores", "fp32", set()),
        ("top1:scores", "int8", {"scores"}),
        ("boxes:pooled", "fp32", {"pooled"}),
        ("tensor", "int8", set()),
    ],
)
def test_answers_decide_outside_of_float32_and_everywhere_where_rows_have_no_order(
    judge: str, precision: str, decided: set[str]
) -> None:
    tolerance = TensorKind(JudgeChoice.parse(judge)).tolerance("model", precision)
    assert tolerance.decided == decided
    assert ("these decide" in tolerance.reason) == bool(decided)
    assert [limit.number for limit in tolerance.outputs] == ["relative_l2"]


def test_a_page_without_a_judge_has_no_answers(bundle: Bundle) -> None:
    model = {key: value for key, value in bundle.model.items() if key != "judge"}
    plain = replace(bundle, model=model)
    report = compare_bundle(plain)
    evidence = Evidence(plain, report, None, (), (), Machine.here(), {"bench": "None.", "bisect": "None."})
    assert TensorKind().report_section(evidence) is None
    assert all(file.total is not None and file.total.details == {} for file in report.roles[0].files)


_PICTURE = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,3,8,8] x) => (uint8[1,3,8,8] picture, int64[1,8,8] best) {
  y = Sigmoid(x)
  big = Constant <value_float = 255.0> ()
  scaled = Mul(y, big)
  rounded = Round(scaled)
  picture = Cast <to = 2> (rounded)
  best = ArgMax <axis = 1, keepdims = 0> (y)
}"""


def _add(factor: float) -> Callable[[onnx.ModelProto], None]:
    """Return a change that adds to the picture before it is rounded."""

    def change(model: onnx.ModelProto) -> None:
        (node,) = [node for node in model.graph.node if node.op_type == "Round"]
        before = node.input[0]
        node.input[0] = "moved"
        at = list(model.graph.node).index(node)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor), "shift"))
        model.graph.node.insert(at, onnx.helper.make_node("Add", [before, "shift"], ["moved"]))

    return change


@pytest.mark.parametrize(("shift", "failing"), [(0.4, []), (2.0, ["relative_l2"])])
def test_a_rounded_picture_is_judged_by_how_near_it_is(tmp_path: Path, shift: float, failing: list[str]) -> None:
    onnx.save(onnx.parser.parse_model(_PICTURE), tmp_path / "picture.onnx")
    bundle = import_model(tmp_path / "picture.onnx", tmp_path / "bundle", {})
    assert bundle.model["rounded"] == ["picture"]
    copy = replace(bundle.artifacts[0], file="copy.onnx", precision="fp16", parent="model.onnx")
    (tmp_path / "bundle" / "copy.onnx").write_bytes((tmp_path / "bundle" / "model.onnx").read_bytes())
    (tmp_path / "worse").mkdir()
    worse = _worse(replace(bundle, artifacts=(*bundle.artifacts, copy)), tmp_path / "worse", "copy.onnx", _add(shift))
    ((file,),) = [role.files for role in compare_bundle(worse).roles]
    assert file.total is not None
    assert file.total.outputs["picture"].changed > 0.1
    assert [check.number for check in file.failures] == failing
    assert [check.passed for check in file.checks if (check.where, check.number) == ("best", "changed")] == [True]
