"""A torch module becomes an ONNX file with the names of its forward, by either exporter, that agrees with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from backends.errors import InvalidArtifact, InvalidInput
from toolkit.shipping.module import export_module


class Pair(NamedTuple):
    scores: Tensor
    boxes: Tensor


@dataclass
class Found:
    label: Tensor
    extra: None = None


class Head(nn.Module):
    """Returns what `form` names: the same two tensors in another structure."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.linear = nn.Linear(4, 3)

    def forward(self, image: Tensor, scale: float = 1.0) -> object:
        scores = self.linear(image) * scale
        forms = {
            "tensor": scores,
            "tuple": (scores, image + 1),
            "dict": {"logits": scores, "hidden": [image + 1]},
            "named": Pair(scores, image + 1),
            "dataclass": Found(scores.argmax(-1)),
        }
        return forms[self.form]


def _names(path: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(path).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


@pytest.mark.parametrize(
    ("form", "outputs"),
    [
        ("tensor", ["output"]),
        ("tuple", ["output_0", "output_1"]),
        ("dict", ["logits", "hidden_0"]),
        ("named", ["scores", "boxes"]),
        ("dataclass", ["label"]),
    ],
)
def test_inputs_and_outputs_have_the_names_of_forward_and_of_its_result(
    tmp_path: Path, form: str, outputs: list[str]
) -> None:
    notes: list[str] = []
    export_module(Head(form), torch.rand(2, 4), tmp_path / "m.onnx", notes.append)
    assert _names(tmp_path / "m.onnx") == (["image"], outputs)
    assert notes == []


def test_inputs_are_given_by_name_and_those_that_are_no_tensors_become_constants(tmp_path: Path) -> None:
    module, image = Head("tensor").eval(), torch.rand(2, 4)
    export_module(module, {"scale": 3.0, "image": image}, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (got,) = session.run(None, {"image": image.numpy()})
    np.testing.assert_allclose(got, module(image, 3.0).detach().numpy(), rtol=1e-5)


class Lists(nn.Module):
    def forward(self, images: list[Tensor], mask: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return images[0].sum() + images[1].sum(), mask["keep"] * 2


def test_lists_and_dicts_of_tensors_are_inputs_of_their_own(tmp_path: Path) -> None:
    given = ([torch.rand(2), torch.rand(3)], {"keep": torch.rand(4)})
    export_module(Lists(), given, tmp_path / "m.onnx")
    assert _names(tmp_path / "m.onnx") == (["images_0", "images_1", "mask_keep"], ["output_0", "output_1"])


class Branches(nn.Module):
    """A branch that depends on values, which only the tracing exporter takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 3


def test_where_the_exporter_fails_the_older_one_is_used_and_what_it_fixed_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    export_module(Branches(), torch.ones(1, 3), tmp_path / "m.onnx", notes.append)
    assert _names(tmp_path / "m.onnx") == (["x"], ["output"])
    first, second = notes
    assert first.startswith("Branches: exported by the TorchScript exporter; torch's exporter failed: ")
    assert "data-dependent" in first
    assert second.startswith("Branches: the file follows the branches that the example inputs take")
    assert "'output' moved by" in second


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_a_file_that_differs_from_the_module_is_refused_with_both_reasons(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="Random: no exporter gives an ONNX file of it: torch's exporter failed"):
        export_module(Random(), torch.rand(2, 3), tmp_path / "m.onnx")


def test_a_module_in_training_mode_is_exported_in_eval_mode_and_stays_in_its_own(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 4))
    export_module(module, torch.rand(1, 4), tmp_path / "m.onnx")
    assert module.training
    assert module[0].training
    (node,) = [one for one in onnx.load(tmp_path / "m.onnx").graph.node if one.op_type != "Identity"]
    assert node.op_type == "Gemm"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((torch.rand(1, 4), 1.0, 2), "the example inputs do not fit forward.*too many positional arguments"),
        ({"picture": torch.rand(1, 4)}, "missing a required argument: 'image'"),
        (torch.rand(1, 5), "Head: it fails on the example inputs: mat1 and mat2 shapes cannot be multiplied"),
        (1.0, "expected a tensor among the example inputs, got none"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, given: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        export_module(Head("tensor"), given, tmp_path / "m.onnx")
