"""Mixed precision: the fewest layers a budget needs, in a file that can be read and replayed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from backends.litert import TfliteSession
from backends.registry import open_session
from backends.tensor import Array, probe
from graphs.tflite.graph import read_graph
from graphs.tflite.stitch import layer_names, mix
from graphs.tflite.weights_in_place import use_weights_in_place
from graphs.tflite.writer import write_graph
from tests.seal_tiny import converted as converted_in_whole
from tests.shared import made_once
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.quantize import search as searching
from toolkit.convert.quantize.mixed import RECIPE_FILE, MixedRecipe, MixedRequest, read_recipe
from toolkit.convert.quantize.search import Budget, FileVariants, MixedCost, Watched, compared, search
from toolkit.convert.rules import MessageRule
from toolkit.models.watermark.message import matching_bits_needed
from toolkit.parity.agreement import conversion_rules

NAME = "videoseal-1.0-tiny"  # its INT8 file is smaller than its FP16 file on both runtimes, and both times by more
IMAGES = Path(__file__).parents[2] / "images"


def budget(text: str) -> Budget:
    return Budget.parse(text)


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("flips<=0.2%", "flips", 0.002),
        (" size <= 12 MB ", "size", 12e6),
        ("latency<=20.5ms", "latency", 20.5),
        ("flips<=0%", "flips", 0.0),
    ],
)
def test_a_budget_says_what_it_limits(text: str, kind: str, limit: float) -> None:
    assert (budget(text).kind, budget(text).limit) == (kind, pytest.approx(limit))
    assert budget(budget(text).text) == budget(text)


@pytest.mark.parametrize("text", ["", "flips", "flips<0.2%", "flips<=0.2", "size<=12%", "size<=-1MB", "speed<=2ms"])
def test_another_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInput, match='budget: expected "flips<=0.2%", "size<=12MB" or "latency<=20ms", got'):
        budget(text)


Costs = dict[str, tuple[float, int]]
some_costs = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 1000)), min_size=1, max_size=12).map(
    lambda values: {f"layer {i}": (flips / 1000, size) for i, (flips, size) in enumerate(values)}
)


def _searched(costs: Costs, limit: Budget, monkeypatch: pytest.MonkeyPatch) -> tuple[searching.Found, int]:
    """A search in a world where what each layer's quantization costs adds up."""
    runs = 0

    def measure(trials: FileVariants, kept: frozenset[str], watched: Watched, timed: bool = False) -> MixedCost:
        nonlocal runs
        runs += 1
        flips = sum(costs[layer][0] for layer in costs.keys() - kept)
        size = 1000 + sum(costs[layer][1] for layer in kept)
        return MixedCost(flips, 0, flips, size, size / 100 if timed else None)

    def write(kept: frozenset[str]) -> object:
        raise AssertionError("measured above")

    with monkeypatch.context() as patch:
        patch.setattr(searching, "measure", measure)
        watched = Watched(np.zeros((1, 3, 4, 4), np.float32), np.zeros((1, 5), np.float32), MessageRule(None, None))
        return search(FileVariants("ort", tuple(costs), write), limit, watched, lambda step: None), runs  # type: ignore[arg-type]


@given(some_costs, st.integers(0, 300))
def test_flips_are_kept_with_the_fewest_layers(costs: Costs, permille: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        found, runs = _searched(costs, budget(f"flips<={permille / 10}%"), monkeypatch)
    assert found.measured.flips <= permille / 1000 + 1e-9
    # Where costs add up the most expensive layers are the answer: one fewer is never enough.
    dearest = sorted((flips for flips, _ in costs.values()), reverse=True)
    if found.kept:
        assert sum(dearest[len(found.kept) - 1 :]) > permille / 1000 - 1e-9
    assert runs <= 1 + 2 * len(costs) + 6
    assert list(found.alone) == list(costs)


@given(some_costs, st.integers(1000, 8000))
def test_a_size_buys_as_much_as_fits(costs: Costs, limit: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        found, _ = _searched(costs, budget(f"size<={limit / 1e6:.6f}MB"), monkeypatch)
    assert found.measured.bytes <= limit
    order = sorted(costs, key=lambda layer: costs[layer][0] / costs[layer][1], reverse=True)
    if len(found.kept) < len(order):
        left = max((costs[layer][0] / costs[layer][1], costs[layer][1]) for layer in order if layer not in found.kept)
        assert found.measured.bytes + max(costs[layer][1] for layer in order) > limit or left == 0


def test_a_latency_is_measured_and_a_budget_that_cannot_be_kept_says_what_is_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = {"a": (0.1, 500), "b": (0.2, 500)}
    found, _ = _searched(costs, budget("latency<=15ms"), monkeypatch)
    assert (found.kept, found.measured.latency_ms) == (("b",), 15.0)
    with pytest.raises(NotAvailable, match=r"size<=0.0001MB cannot be kept on ort: 0 of 2 layers in FP16 give 30.000%"):
        _searched(costs, budget("size<=0.0001MB"), monkeypatch)


def test_what_a_file_read_is_compared_in_bits_and_verdicts() -> None:
    rows = np.full((3, 65), 1.0, np.float32)
    watched = Watched(
        np.zeros((3, 3, 4, 4), np.float32), rows, MessageRule(matching_bits_needed(rows.shape[1] - 1), 0.0)
    )
    got = rows.copy()
    got[0, 1] = -1  # a bit
    got[1, 0] = -1  # the detection channel
    got[2, 1:40] = -1  # a message that nobody would find
    result = compared(got, watched, 7)
    assert (result.flips, result.verdicts_changed, result.bytes) == (40 / 192, 2, 7)
    assert result.error == pytest.approx(np.sqrt(4 * 41 / 195))
    assert not result.within(budget("flips<=100%"))
    assert compared(rows, watched, 7).within(budget("flips<=0%"))
    few = Watched(np.arange(100.0).reshape(100, 1, 1, 1), np.zeros((100, 2)), MessageRule(None, None)).first(4)
    assert few.images.ravel().tolist() == [0, 33, 66, 99]


def _mixed(parent: Path) -> None:
    folder = parent / NAME
    bundle = Bundle.open(shutil.copytree(converted_in_whole(NAME).folder, folder))
    least, most = ([bundle.find("detector", f, p).bytes for f in ("onnx", "tflite")] for p in ("int8", "fp16"))
    assert max(least) < min(most)
    request = MixedRequest(budget=budget(f"size<={(max(least) + min(most)) / 2e6:.4f}MB"), images=IMAGES)
    convert_bundle(folder, conversion_rules, ("mixed",), mixed=request, strict=True)


@pytest.fixture
def converted() -> Bundle:
    """fp16, int8, and mixed as found for a size between both."""
    return Bundle.open(made_once(f"mixed-{NAME}", _mixed) / NAME)


def _logits(bundle: Bundle, path: Path, precision: str) -> Array:
    artifact = bundle.find("detector", "tflite", precision)
    shutil.copy(path, bundle.folder / artifact.file)
    changed = bundle.with_artifact(
        type(artifact)(**{**vars(artifact), "sha256": sha256_of(path), "bytes": path.stat().st_size})
    )
    feeds = probe(tuple(binding.spec for binding in artifact.inputs))
    with open_session(changed, changed.find("detector", "tflite", precision), "tflite", 1) as session:
        return session.run(feeds)["logits"]


def test_with_none_or_all_layers_kept_it_is_one_of_the_two_files(converted: Bundle, tmp_path: Path) -> None:
    files = [converted.folder / f"detector.{p}.tflite" for p in ("fp16", "int8")]
    names = layer_names(files[1])
    assert len(names) == len(set(names)) > 5
    for kept, precision in ((names, "fp16"), ((), "int8")):
        path, expected = tmp_path / "mixed.tflite", tmp_path / "expected.tflite"
        write_graph(mix(*files, kept), path)
        shutil.copy(converted.folder / f"detector.{precision}.tflite", expected)
        copy = Bundle.open(shutil.copytree(converted.folder, tmp_path / precision))
        got, wanted = (_logits(copy, file, precision) for file in (path, expected))
        np.testing.assert_array_equal(got, wanted)
        assert path.stat().st_size <= 1.02 * expected.stat().st_size
    with pytest.raises(InvalidInput, match="no layer 'gone' to keep; there is "):
        mix(*files, ["gone"])


def test_layers_whose_weights_are_read_in_place_mix_too(converted: Bundle, tmp_path: Path) -> None:
    fp16, int8 = (converted.folder / f"detector.{p}.tflite" for p in ("fp16", "int8"))
    graph = read_graph(fp16)
    assert use_weights_in_place(graph) > 0
    write_graph(graph, tmp_path / "in-place.tflite")
    write_graph(mix(tmp_path / "in-place.tflite", int8, ()), tmp_path / "mixed.tflite")
    results = []
    for path in (tmp_path / "mixed.tflite", int8):
        artifact = converted.find("detector", "tflite", "int8")
        with TfliteSession(path, artifact, 1) as session:
            results.append(session.run(probe(tuple(binding.spec for binding in artifact.inputs)))["logits"])
    np.testing.assert_array_equal(*results)


def test_a_search_is_not_repeated_after_a_failure(
    converted: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(converted.folder, tmp_path / NAME)
    request = MixedRequest(budget=budget("flips<=100%"), images=IMAGES)

    def fail(*_: object) -> None:
        raise InvalidArtifact("after the search")

    with monkeypatch.context() as patch:
        patch.setattr("toolkit.convert.pipeline.make_mixed_tflite", fail)
        with pytest.raises(InvalidArtifact, match="after the search"):
            convert_bundle(copy, conversion_rules, ("mixed",), mixed=request, strict=True)
    monkeypatch.setattr("toolkit.convert.pipeline.find_mixed_recipe", fail)
    convert_bundle(copy, conversion_rules, ("mixed",), mixed=request, strict=True)
    kept = read_recipe(copy / RECIPE_FILE)
    assert (kept.onnx, kept.tflite) == ((), ())
    assert kept.found is not None
    assert kept.found["budget"] == "flips<=100%"


def test_files_of_two_graphs_do_not_mix(converted: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fp16, int8 = (converted.folder / f"detector.{p}.tflite" for p in ("fp16", "int8"))
    other = read_graph(fp16)
    for tensor in other.tensors():
        tensor.table.name += b"/other"
    graphs = {fp16: other, int8: read_graph(int8)}
    monkeypatch.setattr("graphs.tflite.stitch.read_graph", graphs.__getitem__)
    with pytest.raises(
        InvalidArtifact,
        match=r"detector.fp16.tflite: has no tensor '.*' of the shape and type that the INT8 file has",
    ):
        mix(fp16, int8, ())


def test_what_was_found_is_kept_beside_the_files_and_can_be_replayed(converted: Bundle, tmp_path: Path) -> None:
    path = converted.folder / RECIPE_FILE
    kept = read_recipe(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["source_sha256"] == converted.find("detector", "onnx", "fp32").sha256
    for file_format, names in (("onnx", kept.onnx), ("tflite", kept.tflite)):
        account = document["found"][file_format]
        artifact = converted.find("detector", file_format, "mixed")
        assert 0 < len(names) == account["kept_layers"] < account["layers"]
        assert set(names) < set(account["each_layer_quantized_alone"])
        assert account["measured"]["bytes"] == artifact.bytes
        least, most = (converted.find("detector", file_format, p).bytes for p in ("int8", "fp16"))
        assert least < artifact.bytes < most
    copy = shutil.copytree(converted.folder, tmp_path / NAME)
    again = convert_bundle(
        copy, conversion_rules, ("mixed",), mixed=MixedRequest.of(None, None, path), strict=True
    ).bundle
    for file_format in ("onnx", "tflite"):
        assert again.find("detector", file_format, "mixed") == converted.find("detector", file_format, "mixed")
    assert (copy / RECIPE_FILE).read_bytes() == path.read_bytes()
    assert {a.file for a in again.artifacts} == {a.file for a in converted.artifacts}


def test_a_recipe_that_does_not_fit_changes_nothing(converted: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(converted.folder, tmp_path / NAME)
    before = {path.name: sha256_of(path) for path in copy.iterdir() if path.suffix != ".log"}
    for kept in (MixedRecipe(("gone",), (), "0" * 64), MixedRecipe((), ("gone",), "0" * 64)):
        with pytest.raises(InvalidInput, match="no layer 'gone' to keep; there is "):
            convert_bundle(copy, conversion_rules, ("mixed",), mixed=MixedRequest(kept=kept), strict=True)
    assert {p.name: sha256_of(p) for p in copy.iterdir() if p.suffix != ".log" and p.is_file()} == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "recipe.json: not a manifest"),
        ("[]", "recipe.json: expected an object, got list"),
        ('{"format_version": 1}', "recipe.json: missing found, kept, source_sha256"),
        (
            '{"format_version": 2, "kept": {"onnx": [], "tflite": []}, "found": null, "source_sha256": ""}',
            "expected format_version 1, got 2",
        ),
        (
            '{"format_version": 1, "kept": {"onnx": [1], "tflite": []}, "found": null, "source_sha256": ""}',
            "kept.onnx: expected a list of text",
        ),
    ],
)
def test_a_damaged_recipe_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "recipe.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=says):
        read_recipe(tmp_path / "recipe.json")


def test_half_a_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        MixedRequest.of(None, None, tmp_path / "gone.json")
    for request in ((None, IMAGES, None), ("flips<=1%", None, None), (None, None, None)):
        with pytest.raises(InvalidInput, match="give a recipe file, or a budget with a folder of images"):
            MixedRequest.of(*request)
