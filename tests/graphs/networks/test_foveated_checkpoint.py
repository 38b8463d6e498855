"""The hub's DINOv3 and SmolLM2 files with a file of the rest, or all in one, give the foveated model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backends.errors import InvalidArtifact
from graphs.checkpoint import load_checkpoint, random_weights
from graphs.networks.foveated.config import foveated_spec
from graphs.networks.foveated.model import Foveated
from graphs.networks.spec import ModelSpec
from tests import foveated_tiny
from tests.foveated_tiny import DINO, LANGUAGE


@pytest.fixture
def spec() -> ModelSpec:
    return foveated_spec("tiny", "tiny", foveated_tiny.config())


@pytest.fixture
def rest(spec: ModelSpec) -> dict[str, Tensor]:
    """Everything but the two published networks, by our names."""
    keys = spec.expected_state()
    return {key: torch.randn(v.shape) for key, v in keys.items() if not key.startswith(("dino.", "language."))}


def _older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As published files name the blocks; newer code says model.layer."""
    return {key.replace("model.layer.", "layer."): value for key, value in state.items()}


def _save(path: Path, state: dict[str, Tensor]) -> Path:
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


def test_the_specs_keys_are_those_of_the_whole_model(spec: ModelSpec) -> None:
    with torch.device("meta"):
        whole = Foveated(foveated_tiny.config()).state_dict()
    assert {key: tuple(v.shape) for key, v in whole.items()} == {
        key: tuple(v.shape) for key, v in spec.expected_state().items()
    }


@pytest.mark.parametrize("rename", [_older, dict])
def test_three_files_and_one_give_the_same(
    tmp_path: Path, spec: ModelSpec, rest: dict[str, Tensor], rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    dino, language = rename(foveated_tiny.state(DINO)), foveated_tiny.state(LANGUAGE)
    parts = [
        _save(tmp_path / "dinov3.safetensors", dino),
        _save(tmp_path / "smollm2.safetensors", language),
        _save(tmp_path / "rest.safetensors", rest),
    ]
    prefixed = {f"dino.{key}": v for key, v in dino.items()} | {f"language.{key}": v for key, v in language.items()}
    whole = _save(tmp_path / "foveated.safetensors", prefixed | rest)
    apart, together = load_checkpoint(parts, spec), load_checkpoint(whole, spec)
    for role in spec.roles:
        assert apart.states[role].keys() == together.states[role].keys()
        assert all(torch.equal(value, together.states[role][key]) for key, value in apart.states[role].items())
    assert torch.equal(apart.states["encode_frames"]["norm.weight"], foveated_tiny.state(DINO)["norm.weight"])
    assert apart.learned.keys() == {"q_static", "q_init", "coarse_token", "fine_token", "z_vae_init"}
    assert all(torch.equal(value, rest[key]) for key, value in apart.learned.items())


def test_random_weights_are_the_same_in_every_graph(spec: ModelSpec) -> None:
    weights = random_weights(0, spec)
    encode, query, shallow = (weights.states[role] for role in ("encode_frames", "query_deep", "query_shallow"))
    assert all(torch.equal(value, query[f"dino.{key}"]) for key, value in encode.items())
    assert torch.equal(query["query.output_proj.weight"], shallow["query.output_proj.weight"])
    assert weights.learned["q_static"].shape == (1, 24)


def test_a_graph_alone_needs_its_own_weights_alone(tmp_path: Path, spec: ModelSpec, rest: dict[str, Tensor]) -> None:
    path = _save(tmp_path / "dinov3.safetensors", foveated_tiny.state(DINO))
    rest_path = _save(tmp_path / "rest.safetensors", rest)
    loaded = load_checkpoint([path, rest_path], spec.only("encode_frames", "predict"))
    assert list(loaded.states) == ["encode_frames", "predict"]


def test_the_published_file_of_one_network_is_enough_for_its_graph(tmp_path: Path, spec: ModelSpec) -> None:
    path = _save(tmp_path / "dinov3.safetensors", _older(foveated_tiny.state(DINO)))
    loaded = load_checkpoint(path, spec.only("encode_frames"))
    assert list(loaded.states) == ["encode_frames"]
    assert loaded.learned == {}


def test_a_small_tensor_is_missing_from_the_whole_model(
    tmp_path: Path, spec: ModelSpec, rest: dict[str, Tensor]
) -> None:
    del rest["q_static"]
    parts = [
        _save(tmp_path / "dinov3.safetensors", foveated_tiny.state(DINO)),
        _save(tmp_path / "smollm2.safetensors", foveated_tiny.state(LANGUAGE)),
        _save(tmp_path / "rest.safetensors", rest),
    ]
    with pytest.raises(InvalidArtifact, match="missing q_static"):
        load_checkpoint(parts, spec)
