"""Files of another batch, made through the chain again."""

from pathlib import Path

import numpy as np
import pytest

from backends.bundle import Bundle
from tests import seal_tiny
from tests.bench.small_graph import write_graph
from toolkit.bench.result import Batch
from toolkit.bench.throughput import at_batch
from toolkit.export import export_bundle
from toolkit.import_model import import_model
from toolkit.parity.compare import reference_of

NAME = "videoseal-1.0-tiny"


def _at(bundle: Bundle, batch: int, folder: Path, source: Path | None = None) -> dict[str, Batch]:
    folder.mkdir()
    references = {artifact.role: reference_of(bundle.artifacts) for artifact in bundle.artifacts}
    found = at_batch(
        bundle, bundle.artifacts, references, batch, folder, source, threads=1, time_limit_s=0, progress=lambda s: None
    )
    return {file: one for (_, file), one in found.items()}


def test_torch_weights_are_exported_again_and_every_like_file_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = seal_tiny.spec(NAME).only("detector")
    monkeypatch.setattr("toolkit.bench.throughput.find_model", {spec.name: spec}.__getitem__)
    bundle = export_bundle(spec, seal_tiny.weights(NAME), tmp_path / "bundle")
    found = _at(bundle, 3, tmp_path / "work")
    assert set(found) == {"detector.onnx", "detector.safetensors"}
    for one in found.values():
        assert one.median_ms is not None
        assert one.images_a_second == pytest.approx(3 * 1e3 / one.median_ms)
    made = Bundle.open(tmp_path / "work" / "batch")
    assert {artifact.inputs[0].spec.shape[0] for artifact in made.artifacts} == {3}
    assert bundle == Bundle.open(bundle.folder)  # and nothing was done to the bundle itself


def test_an_imported_graph_is_imported_again_where_its_batch_is_open(tmp_path: Path) -> None:
    source = write_graph(tmp_path / "open.onnx", 2.0, "n")
    bundle = import_model(source, tmp_path / "bundle", {"x": (1, 3, 8, 8)})
    (one,) = _at(bundle, 5, tmp_path / "work", source).values()
    assert one.images_a_second is not None
    assert np.isfinite(one.images_a_second)


@pytest.mark.parametrize("given", [True, False])
def test_what_cannot_be_made_says_why(tmp_path: Path, given: bool) -> None:
    source = write_graph(tmp_path / "fixed.onnx", 2.0, 1)
    bundle = import_model(source, tmp_path / "bundle", {})
    (one,) = _at(bundle, 5, tmp_path / "work", source if given else None).values()
    assert one.images_a_second is None
    assert ("the file states 1,3,8,8" if given else "give it with --source") in one.note
