"""Named models: their sizes are the published ones, and a manifest can carry their config."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidArtifact, NotAvailable
from backends.registry import ARCHITECTURES
from graphs.networks.models import MODELS, find_spec
from graphs.networks.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig
from graphs.networks.spec import from_json, to_json

# Counted on the published state dicts.
PARAMETERS = {
    "chunkyseal": 773_715_209,
    "videoseal-1.0": 33_372_545,
    "pixelseal": 33_372_545,
    "videoseal-0.0": 24_559_713,
}


def test_importing_the_table_imports_no_framework() -> None:
    code = (
        "import sys, graphs.networks.models; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", PARAMETERS)
def test_detectors_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        module = find_spec(name).graph("detector").build()
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]


def test_pocketseal_keeps_to_its_budget() -> None:
    spec = find_spec("pocketseal")
    with torch.device("meta"):
        counts = {g.role: sum(p.numel() for p in g.build().parameters()) for g in spec.graphs}
    assert counts["detector"] <= 2_000_000
    assert counts["embedder"] <= 500_000
    assert spec.description["bits"] == 64


def test_an_unknown_model_or_role_lists_what_there_is() -> None:
    with pytest.raises(NotAvailable, match=r"no model named 'seal'; there is pocketseal, .*chunkyseal"):
        find_spec("seal")
    with pytest.raises(NotAvailable, match="there is detector, embedder"):
        find_spec("pocketseal").graph("decoder")


@pytest.mark.parametrize("name", MODELS)
def test_configs_survive_the_manifest(name: str) -> None:
    for graph in MODELS[name].graphs:
        held = json.loads(json.dumps(graph.architecture_json))
        assert from_json(type(graph.config), held["config"], "config") == graph.config
        assert held["name"] in ARCHITECTURES.names


@given(
    depths=st.tuples(*[st.integers(1, 9)] * 4),
    dims=st.tuples(*[st.integers(1, 4096)] * 4),
    bits=st.integers(1, 4096),
    stride=st.sampled_from([2, 4]),
)
def test_any_convnext_config_survives_json(depths: Any, dims: Any, bits: int, stride: int) -> None:
    config = DetectorConfig(bits, 64, ConvNeXtConfig(depths, dims, stride))
    assert from_json(DetectorConfig, json.loads(json.dumps(to_json(config))), "config") == config


def _broken(**changes: Any) -> dict[str, Any]:
    return {**to_json(find_spec("videoseal-1.0").graph("detector").config), **changes}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_broken(bits="256"), r"config\.bits: expected int, got '256'"),
        (_broken(bits=True), r"config\.bits: expected int, got True"),
        (_broken(extra=1), "expected the keys"),
        (_broken(type="EmbedderConfig"), r"config\.type: expected DetectorConfig"),
        (_broken(encoder={"type": "ResNet"}), r"config\.encoder\.type: expected one of \['ConvNeXtConfig'"),
        (_broken(encoder=None), r"config\.encoder\.type"),
        ([], "expected the keys"),
        (None, "expected the keys"),
    ],
)
def test_a_wrong_config_names_its_place(value: Any, message: str) -> None:
    with pytest.raises(InvalidArtifact, match=message):
        from_json(DetectorConfig, value, "config")


def test_values_that_the_config_itself_refuses_are_invalid_artifacts() -> None:
    encoder = {**_broken()["encoder"], "depths": [0, 3, 9, 3]}
    with pytest.raises(InvalidArtifact, match=r"config\.encoder: .*positive"):
        from_json(DetectorConfig, _broken(encoder=encoder), "config")
    embedder = to_json(find_spec("videoseal-1.0").graph("embedder").config)
    for key, wrong in (("channels", 2), ("activation", "gelu"), ("z_channels_mults", [1, "2"]), ("scaling_w", "0.2")):
        with pytest.raises(InvalidArtifact, match=key):
            from_json(EmbedderConfig, {**embedder, key: wrong}, "config")
