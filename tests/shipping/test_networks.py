"""Networks of timm and torchvision, in the place of which tests have small packages of the same interface."""

import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from toolkit.inputs.images import Preprocess
from toolkit.inputs.kept import KeptInputs
from toolkit.shipping import networks
from toolkit.shipping.networks import build_network, example_inputs, load_weights, published_preprocess
from toolkit.shipping.source import Source


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.zeros(4))  # starts as an identity, as the last norms of a residual block do
        self.pretrained_cfg = {
            "input_size": (3, 32, 40), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
            "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
        }  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x).mean((2, 3))) * self.scale


@pytest.fixture(autouse=True)
def _packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool) -> nn.Module:
        assert not pretrained
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})")
        return Network()

    def builder(name: str) -> Any:
        if name != "small":
            raise ValueError(f"Unknown model {name}")

        def build(weights: None, weights_backbone: object = "downloaded") -> nn.Module:
            assert weights_backbone is None
            return Network()

        return build

    timm, vision = ModuleType("timm"), ModuleType("torchvision")
    timm.create_model, timm.list_models = create_model, lambda: ["small"]  # type: ignore[attr-defined]
    stated = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    published = [
        SimpleNamespace(
            url=f"https://example.org/models/small-{number}.pth",
            transforms=partial(
                SimpleNamespace, crop_size=[48], resize_size=whole, interpolation=SimpleNamespace(value=way), **stated
            ),
        )
        for number, (whole, way) in enumerate((([56, 60], "bilinear"), ([52], "bicubic")))
    ]
    vision.models = SimpleNamespace(  # type: ignore[attr-defined]
        get_model_builder=builder, get_model_weights=lambda name: published, list_models=lambda: ["small"]
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "torchvision", vision)


@pytest.mark.parametrize("package", networks.PACKAGES)
def test_the_same_random_weights_are_built_each_time_and_none_is_left_constant(package: str) -> None:
    first, second = build_network(package, "small"), build_network(package, "small")
    assert not first.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
        assert value.unique().numel() > 1


@pytest.mark.parametrize("package", networks.PACKAGES)
def test_an_unknown_name_is_refused_with_one_that_is_near(package: str) -> None:
    with pytest.raises(NotAvailable, match=f"{package}/smal: Unknown model.*; did you mean small?"):
        build_network(package, "smal")


def test_a_package_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NotAvailable, match=r"timm.*pip install timm"):
        build_network("timm", "small")


def test_a_package_of_another_torch_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(networks, "import_module", broken)
    with pytest.raises(NotAvailable, match="torchvision is installed, but cannot be imported: operator .*torch 2"):
        build_network("torchvision", "small")


@pytest.mark.parametrize(
    ("package", "module", "shapes"),
    [
        ("timm", "timm.models.x", [(1, 3, 32, 40)]),
        ("torchvision", "torchvision.models.resnet", [(1, 3, 48, 48)]),
        ("torchvision", "torchvision.models.segmentation.fcn", [(1, 3, 56, 56)]),
        ("torchvision", "torchvision.models.video.resnet", [(1, 3, 16, 48, 48)]),
    ],
)
def test_inputs_have_the_sizes_for_which_the_weights_were_made(
    monkeypatch: pytest.MonkeyPatch, package: str, module: str, shapes: list[tuple[int, ...]]
) -> None:
    network = build_network(package, "small")
    monkeypatch.setattr(Network, "__module__", module)
    assert [tuple(value.shape) for value in example_inputs(package, "small", network, {}).values()] == shapes


def test_sizes_are_chosen_by_name_and_a_detector_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("torchvision", "small")
    found = example_inputs("torchvision", "small", network, {"x": (2, 3, 16, 24)})
    assert found["x"].shape == (2, 3, 16, 24)
    with pytest.raises(InvalidInput, match="no input 'y'; it has x"):
        example_inputs("torchvision", "small", network, {"y": (1,)})
    monkeypatch.setattr(Network, "__module__", "torchvision.models.detection.ssd")
    with pytest.raises(InvalidInput, match="a detector takes a list of images"):
        example_inputs("torchvision", "small", network, {})


@pytest.mark.parametrize("form", ["safetensors", "alone", "state_dict", "module."])
def test_weights_of_a_file_are_loaded_in_the_forms_that_scripts_write(tmp_path: Path, form: str) -> None:
    wanted, network = {name: value + 1 for name, value in Network().state_dict().items()}, Network()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(wanted, path)
    elif form == "module.":
        torch.save({"model": {f"module.{name}": value for name, value in wanted.items()}, "epoch": 3}, path)
    else:
        torch.save(wanted if form == "alone" else {form: wanted}, path)
    load_weights(network, path)
    assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    state = Network().state_dict()
    torch.save({name: value for name, value in state.items() if name != "scale"}, tmp_path / "w.pth")
    with pytest.raises(InvalidArtifact, match=r'w.pth: does not fit Network: .*Missing key.*"scale"'):
        load_weights(Network(), tmp_path / "w.pth")
    torch.save({**state, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(InvalidArtifact, match="expected a state dict, tensors by name, got the keys 'scale'"):
        load_weights(Network(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("package", "file", "text"),
    [
        ("timm", None, "size=32x40,mean=0.5 0.5 0.5,std=0.25 0.25 0.25,interpolation=bicubic,crop=0.9"),
        ("torchvision", None, f"size=48x48,mean=0.485 0.456 0.406,std=0.229 0.224 0.225,crop={48 / 56}"),
        ("torchvision", "small-0.pth", f"size=48x48,mean=0.485 0.456 0.406,std=0.229 0.224 0.225,crop={48 / 56}"),
        (
            "torchvision",
            "small-1.pth",
            f"size=48x48,mean=0.485 0.456 0.406,std=0.229 0.224 0.225,interpolation=bicubic,crop={48 / 52}",
        ),
    ],
)
def test_images_are_read_as_the_package_states_it(package: str, file: str | None, text: str) -> None:
    network, path = build_network(package, "small"), None if file is None else Path("weights", file)
    inputs = example_inputs(package, "small", network, {}, path)
    found = published_preprocess(package, "small", network, inputs, path)
    assert str(found) == text
    assert Preprocess.parse(text) == found


def test_no_preprocessing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("timm", "small")
    image = {"x": torch.zeros(1, 3, 32, 40)}
    network.pretrained_cfg |= {"crop_mode": "squash", "interpolation": "random"}  # type: ignore[operator]
    assert published_preprocess("timm", "small", network, image) == Preprocess(
        (32, 40), mean=(0.5,) * 3, std=(0.25,) * 3
    )
    for inputs in ({"x": torch.zeros(1, 1, 8, 8)}, {"x": torch.zeros(1, 3, 4, 8, 8)}, image | {"y": torch.zeros(1)}):
        assert published_preprocess("timm", "small", network, inputs) is None
    del network.pretrained_cfg
    assert published_preprocess("timm", "small", network, image) is None
    monkeypatch.setattr(sys.modules["torchvision"].models, "get_model_weights", lambda name: [])
    assert published_preprocess("torchvision", "small", network, image) is None


def test_the_bundle_keeps_what_the_package_states_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    for given in (None, Preprocess(scale=255.0)):
        told: list[str] = []
        source = Source("timm/small", kept={"preprocess": given})
        bundle = source.make(tmp_path / "bundle", lambda step: None, told.append)
        kept = KeptInputs.of(bundle).preprocess
        lines = [line for line in told if "images are read" in line]
        if given is not None:
            assert (kept, lines) == (given, [])
            continue
        assert kept is not None
        assert (kept.mean, kept.crop, kept.interpolation) == ((0.5, 0.5, 0.5), 0.9, "bicubic")
        assert lines == [f'timm/small: images are read as timm states it, --preprocess "{kept}"; yours takes its place']
