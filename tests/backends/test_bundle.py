"""A bundle is exactly what its manifest says, or it does not open."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.artifact import Artifact
from backends.atomic import replacing
from backends.bundle import MANIFEST, Bundle
from backends.errors import InvalidArtifact, NotAvailable, ToolkitError
from backends.tensor import Binding, TensorSpec

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}[a-z]", fullmatch=True)
floats = st.builds(
    lambda name, size: Binding.same(TensorSpec(name, (1, 3, size, size), "float32", "NCHW")),
    st.text(min_size=1),
    st.integers(1, 4096),
)
integers = st.builds(
    lambda name, stored, size, scale, zero: Binding(
        TensorSpec(name, (1, 3, size, size + 1), "float32", "NCHW"),
        TensorSpec(stored, (1, size, size + 1, 3), "int8", "NHWC"),
        scale,
        zero,
    ),
    st.text(min_size=1),
    st.text(min_size=1),
    st.integers(1, 4096),
    st.floats(1e-30, 1e30),
    st.integers(-128, 127),
)
bindings = st.builds(lambda binding: (binding,), floats | integers)
artifacts = st.builds(
    Artifact,
    file=names,
    role=st.sampled_from(["detector", "embedder"]),
    format=st.just("tflite"),
    precision=st.sampled_from(["fp32", "fp16", "int8", "int8-static"]),
    route=st.sampled_from(["direct", "tf"]),
    inputs=bindings,
    outputs=bindings,
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    bytes=st.integers(1, 2**62),
    external_files=st.just(()),
    parent=st.none() | names,
    tools=st.dictionaries(st.text(), st.text(), max_size=3),
    architecture=st.none(),
)


@given(artifacts)
def test_an_artifact_survives_json(artifact: Artifact) -> None:
    assert Artifact.from_json(json.loads(json.dumps(artifact.to_json())), "here") == artifact


def test_write_and_open_give_the_same_bundle(tiny: Bundle) -> None:
    before = (tiny.folder / MANIFEST).read_bytes()
    tiny.write()
    assert Bundle.open(tiny.folder) == tiny
    assert (tiny.folder / MANIFEST).read_bytes() == before
    assert sorted(path.name for path in tiny.folder.iterdir() if path.name.startswith(".")) == []


def test_every_shipped_file_verifies(tiny: Bundle) -> None:
    assert [tiny.verify(artifact).name for artifact in tiny.artifacts] == [a.file for a in tiny.artifacts]


def test_no_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match=r"no bundle here .*toolkit export"):
        Bundle.open(tmp_path)


def _edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.folder / MANIFEST
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(extra=1), "unknown extra"),
        (lambda d: d.pop("weights"), "missing weights"),
        (lambda d: d.update(format_version=2), "expected format_version 1, got 2"),
        (lambda d: d.update(format_version=True), "expected an integer"),
        (lambda d: d["model"].pop("name"), "model.name"),
        (lambda d: d["model"].update(kind=""), "model.kind"),
        (lambda d: d["weights"].update(origin="downloaded"), "expected one of trained, checkpoint, random"),
        (lambda d: d["weights"].pop("sha256"), "missing sha256"),
        (lambda d: d.update(artifacts={}), "expected a list"),
        (lambda d: d["artifacts"].append(d["artifacts"][0]), "listed twice: detector.onnx"),
        (lambda d: d["artifacts"].append({**d["artifacts"][0], "file": "other.onnx"}), "the same role"),
        (lambda d: d["artifacts"].append({**d["artifacts"][0], "file": "DETECTOR.onnx"}), "listed twice"),
        (lambda d: d["artifacts"][0].update(file="../secret.onnx"), "plain file name"),
        (lambda d: d["artifacts"][0].update(file="/etc/passwd"), "plain file name"),
        (lambda d: d["artifacts"][0].update(file="a\\b.onnx"), "plain file name"),
        (lambda d: d["artifacts"][0].update(file="sub/detector.onnx"), "plain file name"),
        (lambda d: d["artifacts"][0].update(file=".."), "plain file name"),
        (lambda d: d["artifacts"][0].update(file=""), "plain file name"),
        (lambda d: d["artifacts"][0].update(file="bundle.json"), "listed twice"),
        (lambda d: d["artifacts"][0].update(external_files=["../../x"]), "plain file name"),
        (lambda d: d["artifacts"][0].update(external_files=["detector.onnx"]), "listed twice"),
        (lambda d: d["artifacts"][0].update(role="Detector"), "expected a role like"),
        (lambda d: d["artifacts"][0].update(sha256="00"), "64 lowercase hex digits"),
        (lambda d: d["artifacts"][0].update(bytes=0), "at least 1 byte"),
        (lambda d: d["artifacts"][0].update(bytes=1.5), "expected an integer"),
        (lambda d: d["artifacts"][0].update(format="pickle"), "expected format to be one of"),
        (lambda d: d["artifacts"][0].update(route="direct"), "route"),
        (lambda d: d["artifacts"][0].update(inputs=[]), "distinct input names"),
        (lambda d: d["artifacts"][0].update(inputs=2 * d["artifacts"][0]["inputs"]), "distinct input names"),
        (lambda d: d["artifacts"][0].update(tools={"onnx": 1}), "tools.onnx"),
        (lambda d: d["artifacts"][0]["inputs"][0]["spec"].update(shape=[1, "3"]), "list of integers"),
        (lambda d: d["artifacts"][0]["inputs"][0]["spec"].update(shape=[1, True]), "list of integers"),
        (lambda d: d["artifacts"][0]["inputs"][0]["stored"].update(layout="NHWC"), "does not become"),
        (lambda d: d["artifacts"][0]["inputs"][0].update(scale="1"), "finite number"),
        (lambda d: d["artifacts"][1].update(architecture=None), "architecture"),
        (lambda d: d["artifacts"][1].update(architecture={"name": 1, "config": {}}), "expected text"),
    ],
)
def test_a_manifest_that_is_not_right_is_refused(tiny: Bundle, change: Callable[..., object], says: str) -> None:
    _edit(tiny, change)
    with pytest.raises(InvalidArtifact, match=says):
        Bundle.open(tiny.folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"model": 1, "model": 2}', "duplicate key 'model'"),
        ('{"format_version": NaN}', "NaN is not a number"),
        ("[" * 100_000, "not a manifest"),
        ("[]", "expected an object"),
        ("\ufeff{}", "not a manifest"),
        ("", "not a manifest"),
    ],
)
def test_text_that_is_no_manifest_is_refused(tiny: Bundle, text: str, says: str) -> None:
    (tiny.folder / MANIFEST).write_text(text)
    with pytest.raises(InvalidArtifact, match=says):
        Bundle.open(tiny.folder)


def test_a_manifest_cut_anywhere_is_refused(tiny: Bundle) -> None:
    path = tiny.folder / MANIFEST
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidArtifact, match="bundle.json: not a manifest"):
            Bundle.open(tiny.folder)


@given(st.binary(max_size=200))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    (folder / MANIFEST).write_bytes(noise)
    with pytest.raises(ToolkitError, match=MANIFEST):
        Bundle.open(folder)


def test_find_takes_the_direct_route_first_and_a_miss_lists_what_there_is(tiny: Bundle) -> None:
    direct = tiny.find("detector", "tflite", "int8")
    other = replace(direct, file="detector.int8.tf.tflite", route="tf")
    both = tiny.with_artifact(other)
    assert both.find("detector", "tflite", "int8") is direct
    assert both.find("detector", "tflite", "int8", "tf") is other
    only_tf = replace(both, artifacts=(other,))
    assert only_tf.find("detector", "tflite", "int8") is other
    with pytest.raises(NotAvailable, match=r"no detector onnx fp16; there is detector\.onnx.*toolkit convert"):
        tiny.find("detector", "onnx", "fp16")
    with pytest.raises(NotAvailable, match="`toolkit convert .*` makes more"):
        tiny.find("detector", "onnx", "int16x8")
    for role, file_format in (("large", "tflite"), ("large", "onnx"), ("detector", "torch")):
        without = replace(tiny, artifacts=tuple(a for a in tiny.artifacts if a.format != "torch"))
        with pytest.raises(NotAvailable, match="; `toolkit export` makes more"):  # there is nothing to convert
            without.find(role, file_format, "fp32")


def test_with_artifact_replaces_the_same_file(tiny: Bundle) -> None:
    changed = replace(tiny.artifacts[0], parent="x.onnx")
    result = tiny.with_artifact(changed)
    assert len(result.artifacts) == len(tiny.artifacts)
    assert changed in result.artifacts


def test_a_changed_byte_is_refused(tiny: Bundle) -> None:
    artifact = tiny.artifacts[0]
    path = tiny.folder / artifact.file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidArtifact, match="does not match its manifest: expected sha256"):
        tiny.verify(artifact)


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 100_000])
def test_another_size_is_refused(tiny: Bundle, content: bytes) -> None:
    artifact = tiny.artifacts[0]
    (tiny.folder / artifact.file).write_bytes(content)
    with pytest.raises(InvalidArtifact, match=f"expected {artifact.bytes} bytes, got {len(content)}"):
        tiny.verify(artifact)


def test_missing_external_data_is_refused(tiny: Bundle) -> None:
    artifact = replace(tiny.artifacts[0], external_files=("detector.onnx.data",))
    with pytest.raises(InvalidArtifact, match=r"detector\.onnx\.data: .* no such file"):
        tiny.verify(artifact)
    with pytest.raises(InvalidArtifact, match=r"detector\.onnx\.data: .* no such file"):
        tiny.with_artifact(artifact).write()


def test_a_link_out_of_the_bundle_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    artifact = tiny.artifacts[0]
    path = tiny.folder / artifact.file
    path.rename(tmp_path / "outside.onnx")
    path.symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(InvalidArtifact, match="leads out of the bundle"):
        tiny.verify(artifact)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_overwrite_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write_while_another_does() -> None:
        with replacing(path, overwrite=False) as temporary:
            temporary.write_text("new")
            path.write_text("other")

    with pytest.raises(FileExistsError):
        write_while_another_does()
    assert path.read_text() == "other"
    assert list(tmp_path.iterdir()) == [path]
