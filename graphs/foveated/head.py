"""The prediction head: convolutions over the last latent, told by FiLM (Perez et al., 2018) what comes next."""

from torch import Tensor, nn

from graphs.foveated.config import FilmConfig


class FilmHead(nn.Module):
    """State of the language model and the last latent to the next latent.

    Args of forward: state (B, state_dim), latent (B, C, side, side). Returns (B, C, side, side).
    """

    def __init__(self, config: FilmConfig, state_dim: int, latent_channels: int) -> None:
        super().__init__()
        a, b, c = config.channels
        self.film = nn.Sequential(nn.Linear(state_dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, 2 * c))
        self.encode = nn.Sequential(
            nn.Conv2d(latent_channels, a, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(a, b, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(b, c, 3, padding=1),
        )
        self.decode = nn.Sequential(
            nn.Conv2d(c, b, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(b, a, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(a, latent_channels, 3, padding=1),
        )

    def forward(self, state: Tensor, latent: Tensor) -> Tensor:
        gamma, beta = self.film(state)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.decode(gamma * self.encode(latent) + beta)
        return out
