"""A checkpoint is read without running anything in it, and fits its model exactly or not at all."""

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backends.bundle import sha256_of
from backends.errors import InvalidArtifact, NotAvailable
from graphs.checkpoint import load_checkpoint, random_weights
from graphs.spec import find_spec
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
    assert 0.1 < logits.std() < 10
    assert (logits[0] - logits[1]).abs().mean() > 0.01
