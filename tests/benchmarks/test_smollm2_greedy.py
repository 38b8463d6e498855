"""The golden's greedy tokens, by the graph of one step and its cache."""

import json
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from benchmarks.smollm2_greedy import compare, smollm2_spec
from graphs.checkpoint import load_checkpoint
from tests import foveated_tiny
from toolkit.export import export_bundle


def test_the_step_and_its_cache_choose_the_goldens_tokens_on_every_backend(tmp_path: Path) -> None:
    held = foveated_tiny.tensors(foveated_tiny.LANGUAGE)
    prompt = tuple(held["inputs/input_ids"].flatten().tolist())
    whole = held["outputs/greedy_24"].flatten().tolist()
    expected = whole[len(prompt) :]
    assert whole[: len(prompt)] == list(prompt)
    save_file(foveated_tiny.state(foveated_tiny.LANGUAGE), tmp_path / "model.safetensors")
    spec = smollm2_spec(foveated_tiny.language(), len(prompt) + len(expected))
    bundle = export_bundle(spec, load_checkpoint(tmp_path / "model.safetensors", spec), tmp_path / "smollm2")
    (row,) = compare(bundle, (prompt,), len(expected))
    assert row["tokens"] == expected
    assert row["same_as_torch"] == {"onnx": True}
    assert 0 < row["closest_choice"] < 1
    assert json.dumps(row)
    assert len(np.unique(expected)) > 1
