"""DeepSeek-OCR's own file, whole or in shards, gives the vision tower; its language model is never read."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backends.bundle import sha256_of
from backends.errors import InvalidArtifact, NotAvailable
from graphs.checkpoint import load_checkpoint, random_weights
from graphs.networks.deepencoder.config import deepencoder_spec
from graphs.networks.spec import ModelSpec
from tests.deepencoder_tiny import config, state

LANGUAGE_MODEL = {
    "lm_head.weight": torch.ones(50, 40),
    "model.embed_tokens.weight": torch.ones(50, 40),
    "model.layers.0.self_attn.q_proj.weight": torch.ones(40, 40),
    "model.norm.weight": torch.ones(40),
}


@pytest.fixture
def spec() -> ModelSpec:
    return deepencoder_spec("tiny", "tiny", {"small": config(64), "base": config(128)})


@pytest.fixture
def published() -> dict[str, Tensor]:
    """As DeepSeek-OCR is published: bfloat16, the language model and a table of indices beside."""
    vision = {f"model.{key}": value for key, value in state().items()}
    indices = {"model.vision_model.embeddings.position_ids": torch.arange(5)[None]}
    return {key: v.bfloat16() for key, v in {**vision, **LANGUAGE_MODEL}.items()} | indices


def _shards(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Two shards, dealt out alternately, and their index."""
    names = sorted(tensors)
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in sorted(set(places.values())):
        save_file({name: tensors[name] for name in names if places[name] == shard}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_every_graph_gets_the_one_set_of_weights(tmp_path: Path, spec: ModelSpec, published: dict[str, Tensor]) -> None:
    save_file(published, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors", spec)
    assert list(loaded.states) == ["small", "base"]
    for tensors in loaded.states.values():
        assert tensors.keys() == state().keys()
        for name, value in state().items():
            assert tensors[name].dtype == torch.float32
            assert torch.equal(tensors[name], value.bfloat16().float())


def test_shards_give_the_same(tmp_path: Path, spec: ModelSpec, published: dict[str, Tensor]) -> None:
    save_file(published, tmp_path / "model.safetensors")
    whole = load_checkpoint(tmp_path / "model.safetensors", spec)
    sharded = load_checkpoint(_shards(tmp_path, published), spec)
    assert sharded.source == "model.safetensors.index.json"
    assert sharded.sha256 == whole.sha256
    assert all(torch.equal(sharded.states["base"][name], value) for name, value in whole.states["base"].items())


def test_the_language_model_is_not_read(tmp_path: Path, spec: ModelSpec, published: dict[str, Tensor]) -> None:
    """Neither checked nor hashed: another one gives the same weights, and one that is damaged does no harm."""
    hashes = set()
    for i, value in enumerate((1.0, 2.0, float("nan"))):
        path = tmp_path / f"{i}.safetensors"
        save_file(published | {"lm_head.weight": torch.full((50, 40), value)}, path)
        hashes.add(load_checkpoint(path, spec).sha256)
    assert len(hashes) == 1
    changed = published | {"model.image_newline": published["model.image_newline"] + 1}
    save_file(changed, tmp_path / "changed.safetensors")
    assert load_checkpoint(tmp_path / "changed.safetensors", spec).sha256 not in hashes


def test_a_file_of_the_tower_alone_loads_by_either_name(tmp_path: Path, spec: ModelSpec) -> None:
    path = tmp_path / "vision.safetensors"
    save_file(state(), path)
    assert load_checkpoint(path, spec).sha256 == sha256_of(path)


def test_what_does_not_fit_is_named(tmp_path: Path, spec: ModelSpec, published: dict[str, Tensor]) -> None:
    del published["model.projector.layers.bias"]
    path = tmp_path / "model.safetensors"
    save_file(published | {"model.sam_model.surprise": torch.zeros(1)}, path)
    with pytest.raises(InvalidArtifact, match=r"missing projector\.layers\.bias; unknown sam_model\.surprise"):
        load_checkpoint(path, spec)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "not a readable index"),
        ("[]", 'expected {"weight_map": {tensor: file}}'),
        ('{"weight_map": {"a": "../b.safetensors"}}', "expected the name of a .safetensors file beside it"),
        ('{"weight_map": {"a": 1}}', "expected the name of a .safetensors file beside it, got 1"),
        ('{"weight_map": {"a": "b.safetensors"}}', "lists b.safetensors, which is not beside it"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, spec: ModelSpec, index: str, said: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    with pytest.raises(InvalidArtifact) as error:
        load_checkpoint(path, spec)
    assert said in str(error.value)


def test_an_index_that_does_not_match_its_shards_is_refused(
    tmp_path: Path, spec: ModelSpec, published: dict[str, Tensor]
) -> None:
    index = _shards(tmp_path, published)
    content = json.loads(index.read_text())
    content["weight_map"]["model.more"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(InvalidArtifact, match="says that model-00001-of-00002.safetensors holds model.more, which"):
        load_checkpoint(index, spec)


def test_parts_may_come_in_files_of_their_own(tmp_path: Path, spec: ModelSpec, published: dict[str, Tensor]) -> None:
    sam = {key: value for key, value in published.items() if "sam_model" in key}
    rest = {key: value for key, value in published.items() if key not in sam}
    paths = [tmp_path / "sam.safetensors", tmp_path / "rest.safetensors"]
    for path, part in zip(paths, (sam, rest), strict=True):
        save_file(part, path)
    assert load_checkpoint(paths, spec).source == "sam.safetensors + rest.safetensors"
    with pytest.raises(InvalidArtifact, match="was given already; give each weight once"):
        load_checkpoint([*paths, paths[0]], spec)
    with pytest.raises(NotAvailable, match="nothing.safetensors: no such checkpoint file"):
        load_checkpoint([*paths, tmp_path / "nothing.safetensors"], spec)


def test_random_weights_are_one_set_for_all_graphs(spec: ModelSpec) -> None:
    weights, again = random_weights(3, spec), random_weights(3, spec.only("base"))
    assert weights.sha256 == again.sha256 != random_weights(4, spec).sha256
    for name, value in weights.states["small"].items():
        assert torch.equal(value, weights.states["base"][name])
        assert torch.equal(value, again.states["base"][name])


def test_the_published_names_of_the_full_size_are_those_of_the_spec() -> None:
    from graphs.networks.deepencoder.config import SPECS

    names = SPECS[0].expected_state()
    assert all(
        key.startswith(("sam_model.", "vision_model.", "projector.layers.", "image_newline", "view_")) for key in names
    )
    assert names["sam_model.blocks.0.attn.rel_pos_h"].shape == (27, 64)
    assert names["sam_model.blocks.2.attn.rel_pos_h"].shape == (127, 64)
    assert names["vision_model.embeddings.position_embedding.weight"].shape == (257, 1024)
    assert SPECS[0].roles == ("tiny", "small", "base", "large")
