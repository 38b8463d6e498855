"""Image to latent, and latent to image: a stack of convolutions, and its mirror image."""

from torch import Tensor, nn

from graphs.captioner.config import CaptionerConfig


class ImageEncoder(nn.Module):
    """image (B, 3, S, S) float32 in [-1, 1] to latent (B, latent): strided convolutions, average, Linear."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        sizes = (3, *config.channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.to_latent = nn.Linear(sizes[-1], config.latent)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for conv in self.convs:
            x = conv(x).relu()
        latent: Tensor = self.to_latent(x.mean(dim=(2, 3)))
        return latent


class ImageDecoder(nn.Module):
    """latent (B, latent) to image (B, 3, S, S) float32 in [-1, 1]: Linear, transposed convolutions, tanh."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        sizes = (*reversed(config.channels), 3)
        self.map_shape = (sizes[0], config.map_side, config.map_side)
        self.from_latent = nn.Linear(config.latent, sizes[0] * config.map_side**2)
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, latent: Tensor) -> Tensor:
        x: Tensor = self.from_latent(latent).reshape(-1, *self.map_shape)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = x.relu() if i < len(self.convs) - 1 else x.tanh()
        return x
