"""SmolLM2-135M at full size: do torch, ONNX Runtime and TFLite choose the same tokens?

    python -m benchmarks.smollm2_greedy FOLDER [--checkpoint model.safetensors | --random SEED] [--json FILE]

Makes a bundle in FOLDER of one graph, a step of the language model of the foveated model with its cache and its head:
one token in, logits and its keys and values out. Then each backend continues the same prompts greedily, on its own
choices and its own cache, and the tokens are compared.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from backends.bundle import Bundle
from backends.machine import default_threads, describe
from backends.registry import ARCHITECTURES, default_backend, open_session
from backends.session import Session
from backends.tensor import Array, TensorSpec
from graphs.checkpoint import load_checkpoint, random_weights
from graphs.networks.foveated.config import SMOLLM2_135M, LlamaConfig
from graphs.networks.foveated.llama import Llama
from graphs.networks.spec import GraphSpec, KeyNames, ModelSpec, from_json
from toolkit.convert.pipeline import convert_bundle
from toolkit.export import export_bundle
from toolkit.parity.agreement import conversion_rules

TOKENS = 64
PROMPTS = ((1, 2, 3), (11, 402, 9000, 17), (4321,))


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


def compare(bundle: Bundle, prompts: tuple[tuple[int, ...], ...], count: int) -> list[dict[str, Any]]:
    """A row a prompt: torch's tokens, whether every float32 file chose the same, and torch's closest choice."""
    found: dict[str, list[tuple[list[int], float]]] = {}
    for artifact in bundle.artifacts:
        if artifact.precision == "fp32":
            with open_session(bundle, artifact, default_backend(artifact.format).name, default_threads()) as session:
                found[artifact.format] = [greedy(session, prompt, count) for prompt in prompts]
    rows = []
    for i, prompt in enumerate(prompts):
        tokens, nearest = found["torch"][i]
        same = {name: results[i][0] == tokens for name, results in found.items() if name != "torch"}
        rows.append({"prompt": list(prompt), "tokens": tokens, "same_as_torch": same, "closest_choice": nearest})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--checkpoint", type=Path)
    weights.add_argument("--random", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    spec = smollm2_spec(SMOLLM2_135M, max(map(len, PROMPTS)) + TOKENS)
    given = arguments.checkpoint
    loaded = random_weights(arguments.random, spec) if given is None else load_checkpoint(given, spec)
    folder = arguments.folder / spec.name
    export_bundle(spec, loaded, folder, progress=print)
    bundle = convert_bundle(folder, conversion_rules, ("fp32",), progress=print)
    rows = compare(bundle, PROMPTS, TOKENS)
    for row in rows:
        print(row)
    if arguments.json:
        result = {
            "machine": describe(),
            "model": "SmolLM2-135M",
            "parameters": spec.count_parameters(),
            "weights": f"{loaded.origin}, {loaded.source}",
            "prompts": rows,
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
