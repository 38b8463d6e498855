"""What somebody would run instead: made for real where that is quick, and a reason where it cannot be."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.registry import open_session
from tests.bench.small_graph import write_graph
from toolkit.bench import bundle as bench_module
from toolkit.bench import peers as peers_module
from toolkit.bench import rows as rows_module
from toolkit.bench.bundle import bench_bundle
from toolkit.bench.peers import COMPILED, EAGER, EXPORTED, ONNX2TF, OPENVINO, PEERS, TENSORFLOW, Peer, make_peers
from toolkit.bench.result import BenchOptions, ColdStart
from toolkit.bench.together import BenchTarget, timing_feeds
from toolkit.convert import binding, converter
from toolkit.convert.converter import ConversionFailed, WorkerResult
from toolkit.import_model import import_model


def _by_name(peers: list[Peer]) -> dict[str, Peer]:
    return {peer.name: peer for peer in peers}


def _detector(bundle: Bundle) -> Bundle:
    return Bundle(
        bundle.folder, bundle.model, bundle.weights, tuple(a for a in bundle.artifacts if a.role == "detector")
    )


def _same_outputs(target: BenchTarget, bundle: Bundle) -> bool:
    reference = bundle.find("detector", "torch", "fp32")
    feeds = timing_feeds(bundle, reference)
    with open_session(bundle, reference, "torch", threads=1) as session:
        expected = session.run(feeds)["logits"]
    with target.open(threads=1) as session:
        return bool(np.allclose(session.run(feeds)["logits"], expected, atol=1e-4))


def test_the_exported_graph_is_not_the_prepared_one_and_computes_what_torch_does(tiny: Bundle, tmp_path: Path) -> None:
    (peer,) = make_peers(tiny, "detector", tmp_path, names=[EXPORTED])
    assert peer.target is not None
    assert peer.target.artifact.sha256 != tiny.find("detector", "onnx", "fp32").sha256
    assert _same_outputs(peer.target, tiny)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, of its own module
def test_torch_compile_computes_what_torch_does(tiny: Bundle, tmp_path: Path) -> None:
    (peer,) = make_peers(tiny, "detector", tmp_path, names=[COMPILED])
    assert peer.target is not None
    assert _same_outputs(peer.target, tiny)


@pytest.mark.openvino
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_computes_what_torch_does(tiny: Bundle, tmp_path: Path) -> None:
    (peer,) = make_peers(tiny, "detector", tmp_path, names=[OPENVINO])
    assert peer.target is not None
    assert _same_outputs(peer.target, tiny)


def test_what_is_not_installed_says_so(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "find_spec", lambda name: None)
    made = _by_name(make_peers(tiny, "detector", tmp_path, names=[EAGER, OPENVINO]))
    assert [made[name].target for name in (EAGER, OPENVINO)] == [None, None]
    assert "pip install openvino" in made[OPENVINO].note
    assert "pip install torch" in made[EAGER].note


def _kill(*arguments: object) -> None:
    os.abort()


def test_a_converter_s_file_that_ends_the_process_is_a_row_that_says_so(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(request: dict[str, Any], folder: Path, log: Path, timeout_s: float, progress: object) -> WorkerResult:
        return WorkerResult({"graph": shutil.copyfile(tiny.folder / "detector.fp32.tflite", tmp_path / "made")}, {})

    monkeypatch.setattr(converter, "run_worker", made)
    monkeypatch.setattr(binding, "bind_tflite", _kill)
    (peer,) = make_peers(tiny, "detector", tmp_path, names=[ONNX2TF])
    assert peer.target is None
    assert peer.note == "the process in which LiteRT first ran the file was killed by SIGABRT"


def test_a_converter_that_gives_up_is_a_row_that_names_the_node_and_says_what_became_of_the_prepared_graph(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: dict[str, Any], folder: Path, log: Path, timeout_s: float, progress: object) -> None:
        log.write_text("trace\nERROR: onnx_op_name: node_hard\nadvice\n")
        raise ConversionFailed(f"the converter failed while lowering; log: {log}")

    monkeypatch.setattr(converter, "run_worker", fail)
    made = _by_name(make_peers(tiny, "detector", tmp_path, names=[ONNX2TF, *TENSORFLOW.values()]))
    assert set(made) == {ONNX2TF, *TENSORFLOW.values()}
    for peer in made.values():
        assert peer.target is None
        assert peer.note == "onnx2tf gave up at node_hard"


def test_the_result_has_a_row_for_every_peer_and_eager_is_the_row_of_the_torch_file(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _detector(tiny)
    kept = tuple(a for a in bundle.artifacts if a.format in ("onnx", "torch"))
    bundle = Bundle(bundle.folder, bundle.model, bundle.weights, kept)
    # The tiny architecture is known to this process alone; what a fresh one measures is tested elsewhere.
    figures = ColdStart(1.0, 1.0, 1.0, None, peak_rss_bytes=1, peak_rss_before_load_bytes=1)
    monkeypatch.setattr(rows_module, "measure_cold_start", lambda target, threads, seconds: figures)
    broken = next(a for a in bundle.artifacts if a.format == "torch")

    def made(bundle: Bundle, role: str, folder: Path, *rest: object) -> list[Peer]:
        return [
            Peer(EAGER, role, "the module", BenchTarget(EAGER, bundle, broken, "torch")),
            Peer(EXPORTED, role, "exported", BenchTarget(EXPORTED, bundle, kept[0], "ort")),
            Peer(COMPILED, role, "compiled", BenchTarget(COMPILED, bundle, broken, "broken")),
            Peer(OPENVINO, role, "not installed", None),
        ]

    monkeypatch.setattr(bench_module, "make_peers", made)
    result = bench_bundle(bundle, BenchOptions(threads=1, time_limit_s=0, peers=True))
    rows = {peer.name: peer for peer in result.peers}
    (torch_file,) = (file for file in result.files if file.file == broken.file)
    assert rows[EAGER].timing == torch_file.timing
    assert rows[COMPILED].timing is None
    assert "no backend named 'broken'; there is openvino, ort" in rows[COMPILED].note
    assert (rows[OPENVINO].timing, rows[OPENVINO].note) == (None, "not installed")
    assert rows[OPENVINO].sha256 is None


def test_the_peers_of_an_imported_graph_need_its_source_and_no_other_file(tmp_path: Path) -> None:
    source, other = write_graph(tmp_path / "given.onnx", 2.0), write_graph(tmp_path / "other.onnx", 3.0)
    bundle = import_model(source, tmp_path / "imported", {})
    folders = [tmp_path / name for name in ("without", "with", "wrong")]
    for folder in folders:
        folder.mkdir()
    without = _by_name(make_peers(bundle, "model", folders[0], names=[EAGER, EXPORTED]))
    assert "needs the file that was imported, given.onnx" in without[EXPORTED].note
    assert "needs torch weights" in without[EAGER].note
    (peer,) = make_peers(bundle, "model", folders[1], source, names=[EXPORTED])
    assert peer.target is not None
    feeds = timing_feeds(bundle, bundle.artifacts[0])
    with (
        peer.target.open(1) as one,
        open_session(bundle, bundle.artifacts[0], "ort", 1) as two,
    ):
        assert np.allclose(one.run(feeds)["y"], two.run(feeds)["y"])
    with pytest.raises(InvalidInput, match=r"other\.onnx: not the file that .* was imported from, given\.onnx"):
        bench_bundle(bundle, BenchOptions(threads=1, time_limit_s=0, source=other))


def test_every_peer_has_a_row_in_the_order_of_the_table(tiny: Bundle, tmp_path: Path) -> None:
    bundle = Bundle(tiny.folder, tiny.model, tiny.weights, (tiny.find("embedder", "onnx", "fp32"),))
    made = make_peers(bundle, "embedder", tmp_path)
    assert tuple(peer.name for peer in made) == PEERS
    needs = [peer.note for peer in made if peer.name in (EAGER, EXPORTED, ONNX2TF)]
    assert all("torch weights" in note for note in needs)
