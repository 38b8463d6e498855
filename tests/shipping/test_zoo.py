"""A dozen small networks of the zoo's kind: each comes through whole, and every float file agrees with the module."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import toolkit

Conv, Sequential = nn.Conv2d, nn.Sequential


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Sequential(Conv(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Conv(8, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.point = Conv(8, 8, 5, padding=2, groups=8), Conv(8, 16, 1)
        self.down, self.up = Conv(16, 4, 1), Conv(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.point(self.depthwise(x)))
        scale = nn.functional.hardsigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return x * scale


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = Conv(8, 16, 3, stride=2, padding=1), nn.ConvTranspose2d(16, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        small = torch.relu(self.down(x))
        wide = nn.functional.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.cat([x, self.up(small), wide], 1)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(8, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(x), 2)


class LastState(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.cells, self.head = kind(16, 24, batch_first=True), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 24), nn.Linear(24, 7)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        kept = self.table(ids) * mask[..., None]
        return {"logits": self.head(kept.sum(1) / mask.sum(1, keepdim=True))}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(24, 72), nn.Linear(24, 24), nn.LayerNorm(24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _image() -> Tensor:
    return torch.rand(1, 8, 16, 20)


def _rows() -> Tensor:
    return torch.rand(1, 12, 24)


ZOO: dict[str, Callable[[], tuple[nn.Module, object]]] = {
    "residual": lambda: (Residual(), _image()),
    "squeeze-excite": lambda: (SqueezeExcite(), _image()),
    "u-net": lambda: (UNet(), _image()),
    "pixel-shuffle": lambda: (Shuffle(), _image()),
    "group-norm": lambda: (Sequential(Conv(8, 16, 3), nn.GroupNorm(4, 16), nn.SiLU()), _image()),
    "pooling": lambda: (
        Sequential(Conv(8, 16, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 9)),
        _image(),
    ),
    "speech": lambda: (Sequential(nn.Conv1d(1, 8, 9, stride=4), nn.GELU(), nn.Conv1d(8, 8, 3)), torch.rand(1, 1, 200)),
    "mixer": lambda: (Sequential(nn.LayerNorm(24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24)), _rows()),
    "attention": lambda: (Attention(), _rows()),
    "text": lambda: (Text(), {"ids": torch.arange(1, 9)[None], "mask": torch.ones(1, 8)}),
    "lstm": lambda: (LastState(nn.LSTM), torch.rand(1, 10, 16)),
    "gru": lambda: (LastState(nn.GRU), torch.rand(1, 10, 16)),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_file_is_made_and_passes_or_is_said_to_be_impossible(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, inputs = ZOO[name]()
    shipped = toolkit.ship(module, inputs, tmp_path / "bundle", threads=1, time_limit_s=None)
    assert shipped.failed == {}
    verdicts = {file.file: file.verdict for file in shipped.files}
    assert verdicts["model.onnx"] == "reference"
    assert verdicts["model.fp32.tflite"] == "pass"
    assert all("is impossible here" in file.why[0] for file in shipped.files if file.verdict == "impossible")
    assert {"fail", "not made"}.isdisjoint(verdicts.values())
    assert len(shipped.files) == 6
