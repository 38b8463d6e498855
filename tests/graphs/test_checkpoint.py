"""A checkpoint is read without running anything in it, and fits its model exactly or not at all."""

import argparse
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backends.bundle import sha256_of
from backends.errors import InvalidArtifact, NotAvailable
from graphs.checkpoint import load_checkpoint, random_weights
from graphs.export import build_loaded
from graphs.networks.models import find_spec
from tests.seal_tiny import checkpoint, spec, weights

NAME = "videoseal-1.0-tiny"
KEY = "detector.convnext.stages.0.0.pwconv1.weight"


@pytest.fixture
def state() -> dict[str, Tensor]:
    return checkpoint(NAME)


def _write(path: Path, state: dict[str, Any]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        arguments = argparse.Namespace(lr=1e-4, name="run")
        torch.save({"model": state, "args": arguments, "epoch": 3, "optimizer": {"state": {}}}, path)
    return path


@pytest.mark.parametrize("file", ["weights.safetensors", "checkpoint.pth"])
def test_both_formats_give_the_same_weights(tmp_path: Path, state: dict[str, Tensor], file: str) -> None:
    path = _write(tmp_path / file, state)
    loaded = load_checkpoint(path, spec(NAME))
    assert (loaded.origin, loaded.source, loaded.sha256) == ("checkpoint", file, sha256_of(path))
    expected = weights(NAME).states
    assert loaded.states.keys() == expected.keys()
    for role, tensors in expected.items():
        assert loaded.states[role].keys() == tensors.keys()
        assert all(torch.equal(loaded.states[role][name], value) for name, value in tensors.items())


def test_what_published_files_also_hold_is_ignored_by_name(tmp_path: Path, state: dict[str, Tensor]) -> None:
    extra = {
        "attenuation.conv_x.weight": torch.zeros(1),
        "rgb2yuv.M": torch.zeros(3, 3),
        "blender.x": torch.zeros(1),
        "augmenter.y": torch.zeros(1),
        "discriminator.model.0.weight": torch.zeros(1),
        "embedder.msg_processor.msg_embeddings.weight": torch.zeros(1),
    }
    loaded = load_checkpoint(_write(tmp_path / "c.pth", state | extra), spec(NAME))
    assert loaded.states.keys() == {"detector", "embedder"}


def test_half_precision_becomes_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    loaded = load_checkpoint(_write(tmp_path / "c.safetensors", halves), spec(NAME))
    assert loaded.states["detector"]["pixel_decoder.linear.weight"].dtype == torch.float32


@pytest.mark.parametrize("file", ["weights.safetensors", "checkpoint.pth"])
def test_every_key_that_does_not_fit_is_named(tmp_path: Path, state: dict[str, Tensor], file: str) -> None:
    wrong = dict(state)
    del wrong["detector.pixel_decoder.linear.bias"]
    wrong["detector.surprise"] = torch.zeros(1)
    wrong["optimizer.step"] = torch.zeros(1)
    wrong[KEY] = torch.zeros(3, 3)
    with pytest.raises(InvalidArtifact) as error:
        load_checkpoint(_write(tmp_path / file, wrong), spec(NAME))
    for part in (
        "missing detector.pixel_decoder.linear.bias",
        "unknown detector.surprise",
        "unknown optimizer.step",
        f"{KEY}: expected shape (32, 8), got (3, 3)",
    ):
        assert part in str(error.value)


def test_another_models_checkpoint_is_refused_in_one_short_line(tmp_path: Path) -> None:
    path = _write(tmp_path / "c.safetensors", checkpoint("chunkyseal-tiny"))
    with pytest.raises(InvalidArtifact, match=r"does not fit videoseal-1\.0-tiny: .*and \d+ more") as error:
        load_checkpoint(path, spec(NAME))
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, state: dict[str, Tensor], value: float) -> None:
    broken = state[KEY].clone()
    broken[0, 0] = value
    with pytest.raises(InvalidArtifact, match=r"pwconv1\.weight: holds NaN or infinity"):
        load_checkpoint(_write(tmp_path / "c.pth", {**state, KEY: broken}), spec(NAME))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64])
@pytest.mark.parametrize("file", ["weights.safetensors", "checkpoint.pth"])
def test_another_dtype_is_refused(tmp_path: Path, state: dict[str, Tensor], file: str, dtype: torch.dtype) -> None:
    wrong = {**state, KEY: torch.zeros(state[KEY].shape).to(dtype)}
    with pytest.raises(InvalidArtifact, match=rf"pwconv1\.weight: expected torch\.float32, got {dtype}"):
        load_checkpoint(_write(tmp_path / file, wrong), spec(NAME))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(32, 8).to_sparse(),
        torch.zeros(32, 8, device="meta"),
    ],
    ids=["sparse", "meta"],
)
def test_a_tensor_that_is_not_plain_is_refused(tmp_path: Path, state: dict[str, Tensor], tensor: Tensor) -> None:
    with pytest.raises(InvalidArtifact, match=r"c\.pth: "):
        load_checkpoint(_write(tmp_path / "c.pth", {**state, KEY: tensor}), spec(NAME))


def _published(name: str, *roles: str) -> dict[str, Tensor]:
    """Every key of a published model at its full size, all of them views of one zero: such a file is small."""
    model = find_spec(name).only(*roles)
    return {
        f"{graph.role}.{key}": torch.zeros((), dtype=value.dtype).expand(value.shape)
        for graph in model.graphs
        for key, value in graph.expected_state().items()
    }


@pytest.mark.parametrize(
    ("given", "roles", "asked", "hint"),
    [
        ("videoseal-1.0", (), "chunkyseal", "this is a 256-bit checkpoint: use videoseal-1.0."),
        ("videoseal-1.0", ("detector",), "chunkyseal", "this is a 256-bit checkpoint: use videoseal-1.0 or pixelseal."),
        ("pixelseal", (), "videoseal-1.0", "this is a 256-bit checkpoint: use pixelseal."),
        ("chunkyseal", (), "videoseal-1.0", "this is a 1024-bit checkpoint: use chunkyseal."),
        ("videoseal-0.0", (), "pocketseal", "this is a 96-bit checkpoint: use videoseal-0.0."),
    ],
)
def test_the_model_that_a_file_belongs_to_is_named(
    tmp_path: Path, given: str, roles: tuple[str, ...], asked: str, hint: str
) -> None:
    path = _write(tmp_path / "c.pth", _published(given, *roles))
    with pytest.raises(InvalidArtifact, match=re.escape(f"c.pth: does not fit {asked}: {hint}")):
        load_checkpoint(path, find_spec(asked))


def test_a_network_that_is_left_out_may_be_in_the_file_or_not(tmp_path: Path, state: dict[str, Tensor]) -> None:
    detector = {key: value for key, value in state.items() if key.startswith("detector.")}
    for given in (state, detector):
        loaded = load_checkpoint(_write(tmp_path / "c.pth", given), spec(NAME).only("detector"))
        assert list(loaded.states) == ["detector"]
    with pytest.raises(InvalidArtifact, match=r"missing embedder\.unet"):
        load_checkpoint(tmp_path / "c.pth", spec(NAME))


def test_a_left_out_network_of_another_model_shows_that_the_file_is_another_model_s(tmp_path: Path) -> None:
    path = _write(tmp_path / "c.pth", _published("videoseal-1.0"))
    with pytest.raises(InvalidArtifact, match=r"does not fit pixelseal: this is a 256-bit checkpoint: use videoseal-1"):
        load_checkpoint(path, find_spec("pixelseal").only("detector"))


def test_a_file_that_lacks_a_key_is_not_said_to_be_another_model_s(tmp_path: Path) -> None:
    published = _published("videoseal-1.0")
    gone = max(key for key in published if key.startswith("embedder."))
    del published[gone]
    with pytest.raises(InvalidArtifact, match=rf"part of it is videoseal-1\.0's.* missing {re.escape(gone)}$"):
        load_checkpoint(_write(tmp_path / "c.pth", published), find_spec("videoseal-1.0"))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"_orig_mod.module.{key}",
        lambda key: key.replace("detector.", "detector._orig_mod.", 1),
    ],
    ids=["DDP", "compile", "DDP of compile", "compile of DDP", "one network compiled"],
)
def test_the_names_that_a_wrapper_gives_are_read(tmp_path: Path, state: dict[str, Tensor], wrapped: Any) -> None:
    extra = {"blender.x": torch.zeros(1)}
    path = _write(tmp_path / "c.pth", {wrapped(key): value for key, value in (state | extra).items()})
    loaded = load_checkpoint(path, spec(NAME)).states["detector"]
    expected = weights(NAME).states["detector"]
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_file_is_called_one_and_the_way_on_is_said(tmp_path: Path) -> None:
    path = tmp_path / "model.jit"
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(InvalidArtifact, match=r"model\.jit: a TorchScript file, which holds code.*state_dict\(\)"):
        load_checkpoint(path, spec(NAME))


def test_weights_stay_in_their_file_and_become_the_modules_own(tmp_path: Path, state: dict[str, Tensor]) -> None:
    loaded = load_checkpoint(_write(tmp_path / "c.pth", state), spec(NAME)).states["detector"]
    module = build_loaded(spec(NAME).graph("detector"), loaded)
    for name, value in module.state_dict().items():
        assert value.data_ptr() == loaded[name].data_ptr()


class _Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path, proof = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"model": state, "args": _Malicious(proof)}, path)
    with pytest.raises(InvalidArtifact, match=r"evil\.pth: refused, because it holds more than tensors"):
        load_checkpoint(path, spec(NAME))
    path.write_bytes(pickle.dumps(_Malicious(proof)))
    with pytest.raises(InvalidArtifact, match=r"evil\.pth"):
        load_checkpoint(path, spec(NAME))
    assert not proof.exists()


def _rewritten(path: Path, compression: int, member: str, content: bytes | None = None) -> None:
    """The archive again with its members stored or compressed, and one of them with another content."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, content if content is not None and name.endswith(member) else data)


def test_an_archive_that_would_unpack_to_more_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = _write(tmp_path / "bomb.pth", state)
    _rewritten(path, zipfile.ZIP_DEFLATED, "data.pkl", bytes(200 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InvalidArtifact, match=r"bomb\.pth: .* is compressed"):
        load_checkpoint(path, spec(NAME))


def test_a_member_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = _write(tmp_path / "liar.pth", state)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"PK\x01\x02")  # the last entry of the list of members
    data[last + 20 : last + 28] = struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF)
    path.write_bytes(data)
    with pytest.raises(InvalidArtifact, match=r"liar\.pth: .* claims 2147483647 bytes"):
        load_checkpoint(path, spec(NAME))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02}q\x00X\x05\x00\x00\x00modelq\x01",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02h\x07.",
        b"\x80\x02cargparse\nNamespace\n)R}X\x05\x00\x00\x00modelK\x01sb.",
        bytes(range(256)),
    ],
)
def test_a_pickle_made_by_hand_is_refused_in_one_way(tmp_path: Path, state: dict[str, Tensor], content: bytes) -> None:
    path = _write(tmp_path / "hand.pth", state)
    _rewritten(path, zipfile.ZIP_STORED, "data.pkl", content)
    with pytest.raises(InvalidArtifact, match=r"hand\.pth: "):
        load_checkpoint(path, spec(NAME))


@pytest.mark.parametrize("file", ["weights.safetensors", "checkpoint.pth"])
@pytest.mark.parametrize("kept", [0, 8, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, state: dict[str, Tensor], file: str, kept: float) -> None:
    path = _write(tmp_path / file, state)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(InvalidArtifact, match=file):
        load_checkpoint(path, spec(NAME))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "got the keys 'state_dict'"),
        ([1, 2], "got list"),
        ({"model": [1]}, "got the keys 'model'"),
        ({"model": {"detector.x": 3}}, r"model\['detector.x'\]: expected a tensor, got int"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "c.pth"
    torch.save(content, path)
    with pytest.raises(InvalidArtifact, match=message):
        load_checkpoint(path, spec(NAME))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="no such checkpoint file; download it, or use random"):
        load_checkpoint(tmp_path / "none.pth", spec(NAME))


def test_random_weights_come_from_their_seed_and_give_logits_that_differ() -> None:
    model = find_spec("pocketseal")
    first, again, other = random_weights(0, model), random_weights(0, model), random_weights(1, model)
    assert (first.origin, first.source) == ("random", "seed 0")
    assert first.sha256 == again.sha256 != other.sha256
    detector = model.graph("detector").build()
    detector.load_state_dict(first.states["detector"])
    with torch.no_grad():
        logits = detector(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    again_detector = first.states["detector"]
    assert all(torch.equal(value, again_detector[name]) for name, value in detector.state_dict().items())
    alone = random_weights(0, model.only("detector")).states["detector"]
    assert all(torch.equal(value, again_detector[name]) for name, value in alone.items())
    assert 0.1 < logits.std() < 10
    assert (logits[0] - logits[1]).abs().mean() > 0.01
