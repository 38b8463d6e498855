"""SmolLM2, one token a step: the graph of a step and its cache choose the golden's greedy tokens on every backend."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, nn

from backends.registry import ARCHITECTURES, default_backend, open_session
from backends.session import Session
from backends.tensor import Array, TensorSpec
from graphs.checkpoint import load_checkpoint
from graphs.networks.foveated.config import LlamaConfig
from graphs.networks.foveated.llama import Llama
from graphs.networks.spec import GraphSpec, KeyNames, ModelSpec, from_json
from tests import foveated_tiny
from toolkit.export import export_bundle


@dataclass(frozen=True)
class StepConfig:
    """The language model, and how many tokens it has room for."""

    language: LlamaConfig
    length: int


class Step(Llama):
    """token (B, 1) at position (1,), with the keys and values before it, (B, depth * kv_heads * length, d), to logits
    (B, vocabulary) and the token's own keys and values, (B, depth * kv_heads, d)."""

    def __init__(self, config: StepConfig) -> None:
        super().__init__(config.language, config.length)
        self._heads = config.language.depth * config.language.num_kv_heads

    def forward(  # type: ignore[override]  # one token at a time
        self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        apart = (len(token), self._heads, -1, keys.shape[-1])
        state, k, v = self.step(self.embed(token), position, keys.reshape(apart), values.reshape(apart))
        return self.logits(state).squeeze(1), k.flatten(1, 2), v.flatten(1, 2)


def build_step(config: object) -> nn.Module:
    """Step of a StepConfig as JSON, weights not loaded."""
    return Step(from_json(StepConfig, config, "smollm2-step config"))


ARCHITECTURES.add("smollm2-step", build_step)


def smollm2_spec(config: LlamaConfig, length: int) -> ModelSpec:
    """One graph, `step`. Weights have the model hub's own names."""
    heads = config.depth * config.num_kv_heads

    def tensor(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
        return TensorSpec(name, shape, dtype, None)

    past = (tensor("keys", 1, heads * length, config.head_dim), tensor("values", 1, heads * length, config.head_dim))
    graph = GraphSpec(
        role="step",
        architecture="smollm2-step",
        config=StepConfig(config, length),
        inputs=(tensor("token", 1, 1, dtype="int32"), tensor("position", 1, dtype="int32"), *past),
        outputs=(
            tensor("logits", 1, config.vocabulary),
            tensor("new_keys", 1, heads, config.head_dim),
            tensor("new_values", 1, heads, config.head_dim),
        ),
        prefix="",
    )
    description = {"name": "smollm2", "kind": "tensor"}
    return ModelSpec("smollm2", "SmolLM2, a step", description, (graph,), KeyNames(ignored=("lm_head.weight",)))


def greedy(session: Session, prompt: tuple[int, ...], count: int) -> tuple[list[int], float]:
    """`count` tokens after a prompt; and how near the closest choice was: the two largest logits' difference over the
    range of all, at its smallest."""
    shapes = {binding.spec.name: binding.spec.shape for binding in session.artifact.inputs}
    heads = next(b.spec.shape[1] for b in session.artifact.outputs if b.spec.name == "new_keys")
    cache: dict[str, Array] = {name: np.zeros(shapes[name], np.float32) for name in ("keys", "values")}
    tokens, nearest = list(prompt), float("inf")
    for at in range(len(prompt) + count - 1):
        feeds = {"token": np.array([[tokens[at]]], np.int32), "position": np.array([at], np.int32), **cache}
        out = session.run(feeds)
        for name, held in cache.items():
            held.reshape(heads, -1, held.shape[-1])[:, at] = out[f"new_{name}"][0]
        if at + 1 == len(tokens):
            logits = out["logits"][0]
            second, first = np.partition(logits, -2)[-2:]
            nearest = min(nearest, float((first - second) / np.ptp(logits)))
            tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :], nearest


def test_the_step_and_its_cache_choose_the_goldens_tokens_on_every_backend(tmp_path: Path) -> None:
    held = foveated_tiny.tensors(foveated_tiny.LANGUAGE)
    prompt = tuple(held["inputs/input_ids"].flatten().tolist())
    whole = held["outputs/greedy_24"].flatten().tolist()
    expected = whole[len(prompt) :]
    assert whole[: len(prompt)] == list(prompt)
    save_file(foveated_tiny.state(foveated_tiny.LANGUAGE), tmp_path / "model.safetensors")
    spec = smollm2_spec(foveated_tiny.language(), len(prompt) + len(expected))
    bundle = export_bundle(spec, load_checkpoint(tmp_path / "model.safetensors", spec), tmp_path / "smollm2")
    assert {artifact.format for artifact in bundle.artifacts} == {"torch", "onnx"}
    for artifact in bundle.artifacts:
        with open_session(bundle, artifact, default_backend(artifact.format).name, threads=1) as session:
            tokens, nearest = greedy(session, prompt, len(expected))
        assert tokens == expected
        assert 0 < nearest < 1
    assert len(np.unique(expected)) > 1
