"""The network and its fixed weights. To write them: python -m sample_plugins.classifier.network OUT.safetensors"""

import sys
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from graphs.networks.spec import from_json
from sample_plugins.classifier.config import ColourConfig

COLOURS = ((0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0))
CHANNELS = 16


class ColourClassifier(nn.Module):
    """image (1, 3, S, S) in [0, 1] -> logits (1, classes): the nearness of its mean colour to that of each class."""

    def __init__(self, config: ColourConfig) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, CHANNELS, 3, padding=1, padding_mode="zeros")
        self.head = nn.Linear(CHANNELS, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.body(image)).abs().mean(dim=(2, 3)))
        return logits


def build(config: dict[str, Any]) -> ColourClassifier:
    """Return the network with the config of a manifest."""
    return ColourClassifier(from_json(ColourConfig, config, "classifier"))


def fixed_weights() -> dict[str, Tensor]:
    """Return weights that need no training: a blur of each colour, and the distance to the colour of each class."""
    module = ColourClassifier(ColourConfig(len(COLOURS)))
    with torch.no_grad():
        module.body.weight.zero_()
        module.body.bias.zero_()  # type: ignore[operator]  # a Conv2d with a bias
        for channel in range(CHANNELS):
            module.body.weight[channel, channel % 3] = 1 / 9
        colours = torch.tensor(COLOURS, dtype=torch.float32)
        module.head.weight.zero_()
        module.head.weight[:, :3] = 2 * colours
        module.head.bias.copy_(-colours.square().sum(dim=1))
    return {f"classifier.{name}": value for name, value in module.state_dict().items()}


if __name__ == "__main__":
    save_file(fixed_weights(), sys.argv[1])
