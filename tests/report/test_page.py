"""What the page says, read as text and as elements."""

import re
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from backends.bundle import WeightsOrigin
from backends.precision import find_recipe
from tests.report.made import MACHINE, bisected, bundle, made, on_another_backend
from toolkit.bisect.result import Unmatched
from toolkit.convert.operations import NumberTypes
from toolkit.convert.weights import Shares
from toolkit.metrics.error import RunningMetrics
from toolkit.parity.report import Check, EndToEndReport, RunReport
from toolkit.parity.stream import Comparison
from toolkit.report import layers
from toolkit.report.evidence import Evidence
from toolkit.report.page import render, write_page

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self._quiet = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._quiet += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._quiet -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


def _details(evidence: Evidence) -> list[dict[str, Any]]:
    """The details of the judge of every file, as they go into the page; to change them changes the page."""
    return [file.total.details for file in evidence.parity.roles[0].files if file.total is not None]


@pytest.fixture(scope="module")
def page() -> Elements:
    return Elements(render(made()))


def test_the_verdict_comes_first_and_the_number_that_failed_with_it(page: Elements) -> None:
    assert page.text.index("1 of 4 files fail") < page.text.index("Skip") + 200
    assert re.search(
        r"detector\.int8\.tflite fails: right bits lost 0\.\d+%, where at most 0\.10% is allowed", page.text
    )
    assert "reference" in page.text
    assert "Random weights" not in page.text


def test_every_section_is_a_landmark_with_its_own_title(page: Elements) -> None:
    sections = [attributes for tag, attributes in page.tags if tag == "section"]
    keys = "summary tradeoff errors layers histograms photographs operators machine manifest"
    assert [section["id"] for section in sections] == keys.split()
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert all(section["aria-labelledby"] in identities for section in sections)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {f"#{key}" for key in keys.split()} <= set(links)


def test_every_file_is_there_with_its_whole_hash(page: Elements) -> None:
    for artifact in bundle().artifacts:
        assert artifact.file in page.text
        assert artifact.sha256 in page.text


def test_nothing_on_the_page_can_ask_for_anything(page: Elements) -> None:
    (policy,) = (a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            if name in attributes:
                assert (attributes[name] or "").startswith(("#", "data:")), (tag, attributes)
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)


def test_a_photograph_s_messages_are_told_and_the_bits_that_flipped_drawn(page: Elements) -> None:
    drawn = [attributes for tag, attributes in page.tags if (attributes.get("class") or "").startswith("bit")]
    flipped = [attributes for attributes in drawn if "flipped" in (attributes["class"] or "")]
    evidence = made()
    told = [
        reading
        for details in _details(evidence)
        for reading in details["readings"]
        if reading["sample"].endswith("none")
    ]
    # Each in a wide and a narrow form; a photograph's hidden message, the reference, and one row for all that agree.
    assert len(flipped) == 2 * sum(len(reading["flipped"]) for reading in told) > 0
    differing = sum(bool(reading["flipped"]) for reading in told)
    assert len(drawn) == 2 * 64 * (4 * 3 + differing)
    assert "onnx and 2 more" in page.text
    assert told[0]["hidden"] in page.text


def test_files_that_read_the_same_share_a_row_and_groups_that_differ_have_rows_of_their_own() -> None:
    evidence = made()
    first, second = ("f" * 16, "0" * 16)
    for file, details in zip(evidence.parity.roles[0].files, _details(evidence), strict=True):
        for reading in details["readings"]:
            reading["read"] = first if file.artifact.format == "onnx" else second
    page = Elements(render(evidence))
    assert "onnx and 1 more" in page.text
    assert "fp16.tflite and 1 more" in page.text
    for details in _details(evidence):
        for reading in details["readings"]:
            reading["read"] = first
    assert "all 4 files" in Elements(render(evidence)).text


def test_a_file_on_two_backends_has_the_messages_of_both() -> None:
    evidence = made()
    both = on_another_backend(evidence.parity, "detector.onnx")
    second = both.roles[0].files[-1]
    assert second.total is not None
    details = deepcopy(second.total.details)
    for reading in details["readings"]:
        reading["read"] = "f" * 16
    files = (*both.roles[0].files[:-1], replace(second, total=replace(second.total, details=details)))
    page = Elements(render(replace(evidence, parity=replace(both, roles=(replace(both.roles[0], files=files),)))))
    assert "onnx on openvino" in page.text
    assert "onnx and 2 more" in page.text
    told = re.findall(r"(\d) of (\d) files read just what it reads", page.text)
    assert told
    assert {files for _, files in told} == {"5"}


def test_random_weights_are_said_at_the_top() -> None:
    page = Elements(render(made(bundle(origin="random"))))
    assert page.text.index("Random weights") < page.text.index("Summary Size")
    assert "not judged: the weights are random" in page.text.lower()


def test_a_hostile_name_is_shown_and_never_run() -> None:
    artifacts = tuple(replace(a, tools={HOSTILE: HOSTILE}) for a in bundle().artifacts)
    hostile = replace(
        bundle(HOSTILE),
        artifacts=artifacts,
        weights=WeightsOrigin("checkpoint", HOSTILE, HOSTILE),
    )
    evidence = made(hostile)
    (bisection,) = evidence.bisections
    layers = tuple(replace(layer, tensor=HOSTILE, module=HOSTILE) for layer in bisection.layers)
    (profile,) = evidence.profiles
    kinds = tuple(replace(total, kind=HOSTILE) for total in profile.by_kind)
    evidence = replace(
        evidence,
        bisections=[
            replace(bisection, layers=layers, repro=HOSTILE, unmatched=(Unmatched(HOSTILE, HOSTILE),)),
        ],
        profiles=[replace(profile, file=HOSTILE, by_kind=kinds)],
        machine=replace(MACHINE, system=HOSTILE, versions={HOSTILE: HOSTILE}),
    )
    page, plain = Elements(render(evidence)), Elements(render(made()))
    assert HOSTILE in "".join(page.said)
    for tag in ("script", "img"):
        count = [sum(t == tag for t, _ in p.tags) for p in (page, plain)]
        assert count[0] == count[1], tag
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_what_has_no_value_reads_none_and_nothing_reads_nan(page: Elements) -> None:
    assert "none" in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    coordinates = [v or "" for _, a in page.tags for k, v in a.items() if k in ("d", "x", "y", "cx", "cy", "width")]
    assert not any(re.search("nan|inf", value, re.IGNORECASE) for value in coordinates)


def test_values_that_are_not_finite_fail_and_are_drawn_as_none() -> None:
    evidence = made(drift={"detector.int8.tflite": float("nan")})
    page = Elements(render(evidence))
    assert "detector.int8.tflite fails: logits: NaN or infinite " in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_what_graphs_make_together_is_judged_beside_their_files_and_a_least_reads_as_one() -> None:
    evidence = made()
    error = RunningMetrics()
    error.add("clip", np.ones(4, np.float32), np.full(4, 1.01, np.float32))
    low = Check("psnr_db", "", 31.25, None, False, "", at_least=35.0)
    total = Comparison("onnx fp32", {"frames": error.result()}, {"psnr_db": 31.25}, {}, {})
    whole = EndToEndReport(
        "clip", ("detector",), "onnx", {"real": 1}, (RunReport("tflite", "int8", total, (low,), "Why."),)
    )
    page = Elements(render(replace(evidence, parity=replace(evidence.parity, wholes=(whole,)))))
    assert "2 of 5 comparisons fail" in page.text
    assert "tflite int8 fails: PSNR, dB 31.2, where at least 35.0 is allowed." in page.text
    assert "31.2 of at least 35.0" in page.text
    assert "Every file of the clip." in page.text
    assert "1.60" in page.text  # megabytes of all its graphs in that format and precision


def test_what_was_not_measured_says_why() -> None:
    missing = {"bench": "Nothing was timed: too large.", "bisect": "Not bisected."}
    page = Elements(render(made(bench=None, bisections=[], profiles=[], missing=missing)))
    for reason in missing.values():
        assert reason in page.text
    assert "Speed-up" not in page.text


def test_a_kind_without_a_section_of_its_own_has_none() -> None:
    other = replace(bundle(), model={"name": "made", "kind": "tensor"})
    page = Elements(render(replace(made(), bundle=other)))
    assert "photographs" not in [attributes.get("id") for _, attributes in page.tags]


def test_layers_are_ranked_by_what_they_introduce_and_the_unmatched_are_named() -> None:
    page = Elements(render(made(bisections=[bisected(layers=40)])))
    told = page.text[page.text.index("Layers of detector.int8.tflite that introduce most") :]
    ranked = bisected(layers=40).ranked()[:4]
    places = [told.index(f"{layer.tensor} ") for layer in ranked]
    assert ranked[0].tensor == "layer_7"
    assert places == sorted(places)
    near = bisected(layers=2)
    many = replace(near.layers[0], tflite_ops=("CONV_2D", "ADD", "MUL", "ADD", "SUB", "GELU", "MEAN"))
    far = replace(near, layers=(many, near.layers[1]))
    assert "2 ADD, CONV_2D, MUL, SUB and 2 more kinds" in Elements(render(made(bisections=[far]))).text
    assert "Not matched, so not measured: dropped. Why: the file holds no such tensor." in page.text
    assert "in running order, over 3 samples." in page.text
    assert Elements(render(made(bisections=[bisected(layers=0)]))).text.count("No layer could be matched") == 1


@pytest.mark.parametrize("width", [335.0, 1080.0])
def test_numbers_of_neighbouring_layers_do_not_lie_on_each_other(width: float) -> None:
    told = list(bisected(layers=90).layers)
    for index in (30, 31, 32):
        told[index] = replace(told[index], introduced=0.06)
    drawing = layers._draw("key", (width, 300.0), "title", "said", told, (30, 31, 32))
    texts = [text for text in ElementTree.fromstring(drawing.markup()).iter("text") if (text.text or "")[0] == "#"]
    places = [(float(text.get("x", 0)), float(text.get("y", 0))) for text in texts]
    assert [text.text for text in texts] == ["#1", "#2", "#3"]
    assert all(abs(a[0] - b[0]) >= 18 or abs(a[1] - b[1]) >= 12 for a, b in combinations(places, 2))


def test_one_layer_is_a_sentence_and_no_plot() -> None:
    page = Elements(render(made(bisections=[bisected(layers=1)])))
    assert "1 layer in running order, over 3 samples. layer_0 (Conv) introduces most" in page.text
    assert "Not matched, so not measured: dropped." in page.text
    assert "Layers of detector.int8.tflite" not in page.text


def test_what_one_would_run_instead_is_a_mark_by_its_size_and_no_candidate_for_the_front() -> None:
    evidence = made()
    assert evidence.bench is not None
    file = evidence.bench.files[0]
    (failed,) = evidence.bench.peers
    quick = replace(
        failed,
        name="a quick peer",
        bytes=1000,
        timing=replace(file.timing, median_ms=0.1),
        of_reference=0.1,
        in_use=file.in_use,
        alone=file.alone,
        note="made",
    )
    same = replace(quick, name="a file of the bundle", timing=file.timing)
    evidence = replace(evidence, bench=replace(evidence.bench, peers=(failed, quick, same)))
    marks = [attributes for tag, attributes in Elements(render(evidence)).tags if tag == "circle"]
    assert sum(mark.get("class") == "mark peer" for mark in marks) == 2  # on a wide screen and on a narrow one
    page, plain = Elements(render(evidence)), Elements(render(made()))
    assert "a quick peer: 0.00100 MB, 0.100 ms; made" in page.text
    assert "Small grey rings are what one would run instead" in page.text
    assert "Small grey rings" not in plain.text
    fronts = [[a["d"] for t, a in p.tags if t == "path" and a.get("class") == "front"] for p in (page, plain)]
    assert [d.count("L") for d in fronts[0] if d] == [d.count("L") for d in fronts[1] if d]


def test_a_page_is_one_file(tmp_path: Path) -> None:
    write_page(made(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_file_that_is_mostly_float_under_another_name_is_not_the_smallest() -> None:
    evidence = made()
    (role,) = evidence.parity.roles
    smallest = min((file.artifact for file in role.files if file.passed), key=lambda artifact: artifact.bytes)
    types = {
        artifact.file: NumberTypes(((find_recipe(artifact.precision).weights, 1.0),), (("float32", 1.0),))
        for artifact in (role.reference, *(file.artifact for file in role.files))
    }

    def text(shares: Shares) -> str:
        given = types | {smallest.file: NumberTypes(shares, (("float32", 1.0),))}
        parity = replace(evidence.parity, roles=(replace(role, number_types=given),))
        return Elements(render(replace(evidence, parity=parity))).text

    kept = find_recipe(smallest.precision).weights
    named = f"Smallest that passes {smallest.file},"
    half = text(((kept, 0.5), ("float32", 0.5)))
    assert named in half
    assert f"50% {kept}, 50% float32 100% float32" in half
    hollow = text((("float32", 0.51), (kept, 0.49)))
    assert named not in hollow
    assert "Smallest that passes" in hollow
    assert f"than {smallest.precision} promises: 51% float32, 49% {kept}" in hollow
