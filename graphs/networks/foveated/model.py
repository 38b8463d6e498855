"""How a query looks at a frame: a glance at what the encoder made of it, or a walk through all of its blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.attention import attention_weights
from graphs.networks.foveated.config import DinoConfig, FilmConfig, FoveatedConfig
from graphs.networks.foveated.dino import Dino
from graphs.networks.foveated.llama import Llama
from graphs.networks.spec import from_json


class QueryAttention(nn.Module):
    """Queries (B, dim), one a frame, to what they see there.

    A frame is encoded once for any number of queries: its patches never see a query.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.query_proj = nn.Linear(config.dim, config.dim)
        self.output_proj = nn.Linear(config.dim, config.dim)

    def shallow(self, query: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """softmax(Linear(query) . patches / sqrt(dim)) over the encoder's last patches, then Linear.

        query (B, dim), patches (B, P, dim): no class or register token. Returns (B, dim), and the attention (B, P).
        """
        weights = attention_weights(self.query_proj(query)[:, None], patches)
        return self.output_proj((weights @ patches).squeeze(1)), weights.squeeze(1)

    def deep(
        self, query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], dino: Dino
    ) -> tuple[Tensor, Tensor]:
        """The query goes through every block of the encoder like a token without a position, then Linear.

        It attends to the keys and values that the frame's patches had there, see Dino.encode.
        Returns (B, dim), and the last block's attention (B, P), the mean of its heads.
        """
        states, weights = dino.look(query[:, None], keys, values)
        return self.output_proj(states.squeeze(1)), weights.squeeze(1)


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


Look = Literal["shallow", "deep"]


@dataclass(frozen=True)
class EncodedFrames:
    """What the encoder made of frames: patches (B, P, dim); keys and values of each block, see Dino.encode."""

    patches: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


@dataclass(frozen=True)
class TwoPasses:
    """Both passes over a clip: predicted latents (T, C, side, side) and attention over the patches (T, side, side)."""

    coarse: Tensor
    fine: Tensor
    coarse_attention: Tensor
    fine_attention: Tensor


class Foveated(nn.Module):
    """The networks of the two-pass model. The parts that run on a device are methods; forward is the whole of it."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        vision, language = config.dino.dim, config.language.dim
        latent = (1, config.latent_channels, config.latent_side, config.latent_side)
        self.config = config
        self.dino = Dino(config.dino)
        self.language = Llama(config.language, config.sequence_length)
        self.query = QueryAttention(config.dino)
        self.q_static = nn.Parameter(torch.zeros(1, vision))  # what the first pass asks every frame
        self.q_init = nn.Parameter(torch.zeros(1, vision))  # what the second pass asks the first frame
        self.vision_to_language = nn.Linear(vision, language)
        self.language_to_query = nn.Linear(language, vision)
        self.coarse_token = nn.Parameter(torch.zeros(1, language))
        self.fine_token = nn.Parameter(torch.zeros(1, language))
        self.head = FilmHead(config.head, language, config.latent_channels)
        self.z_vae_init = nn.Parameter(torch.zeros(latent))  # stands for the latent before the first frame

    def encode_frames(self, frames: Tensor) -> EncodedFrames:
        """frames (B, 3, S, S) float32, normalised with ImageNet's mean and deviation. Costly; once for each frame."""
        tokens, keys, values = self.dino.encode(frames)
        return EncodedFrames(tokens[:, self.config.dino.prefix_tokens :], keys, values)

    def look(self, queries: Tensor, frames: EncodedFrames, how: Look) -> tuple[Tensor, Tensor]:
        """Queries (B, vision dim), one a frame. Returns tokens (B, language dim) and the attention (B, P). Cheap."""
        if how == "shallow":
            seen, attention = self.query.shallow(queries, frames.patches)
        else:
            seen, attention = self.query.deep(queries, frames.keys, frames.values, self.dino)
        return self.vision_to_language(seen), attention

    def think(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, N, language dim) to states, same shape, and the query that each state raises, (B, N, dim)."""
        states = self.language(sequence)
        return states, self.language_to_query(states)

    def forward(self, frames: Tensor, text: Tensor, latents: Tensor | None, how: Look) -> TwoPasses:
        """Both passes over one clip.

        frames (T, 3, S, S); text (N, language dim) with N >= 1, a single zero vector where there is none; latents
        (T, C, side, side), the true ones, from which each frame's successor is predicted; None: all of them zero.
        """
        encoded, length, count = self.encode_frames(frames), len(frames), len(text)
        if latents is None:
            latents = self.z_vae_init.new_zeros(length, *self.z_vae_init.shape[1:])
        previous = torch.cat([self.z_vae_init, latents[:-1]])

        z, coarse_attention = self.look(self.q_static.expand(length, -1), encoded, how)
        states, raised = self.think(torch.cat([text, self.coarse_token, z])[None])
        coarse = self.head(states[0, count : count + length], previous)

        # States after the pass's token have seen frames 1..t: they ask the next frame.
        queries = torch.cat([self.q_init, raised[0, count + 1 : count + length]])
        z, fine_attention = self.look(queries, encoded, how)
        states, _ = self.think(torch.cat([text, self.fine_token, z])[None])
        fine = self.head(states[0, count : count + length], previous)
        side = self.config.dino.side
        return TwoPasses(coarse, fine, *(a.reshape(-1, side, side) for a in (coarse_attention, fine_attention)))

    def losses(self, passes: TwoPasses, latents: Tensor) -> dict[str, Tensor]:
        """Mean squared errors of both passes, and their weighted sum: loss_fine + lambda_coarse * loss_coarse."""
        coarse, fine = F.mse_loss(passes.coarse, latents), F.mse_loss(passes.fine, latents)
        return {"loss_coarse": coarse, "loss_fine": fine, "loss": fine + self.config.lambda_coarse * coarse}


class EncodeFrames(Dino):
    """frames (B, 3, S, S) to patches (B, P, dim), each block's keys (B * heads, d, P), and each block's values
    (B * heads, P, d)."""

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # several results
        tokens, keys, values = self.encode(frames)
        return tokens[:, self.prefix_tokens :], *keys, *values


class ShallowQuery(nn.Module):
    """query (B, dim), patches (B, P, dim) to token (B, language dim), attention (B, P)."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.query = QueryAttention(config.dino)
        self.vision_to_language = nn.Linear(config.dino.dim, config.language.dim)

    def forward(self, query: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        seen, attention = self.query.shallow(query, patches)
        return self.vision_to_language(seen), attention


class DeepQuery(nn.Module):
    """query (B, dim), keys and values of EncodeFrames to token (B, language dim), attention (B, P)."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.dino = Dino(config.dino)
        self.query = QueryAttention(config.dino)
        self.vision_to_language = nn.Linear(config.dino.dim, config.language.dim)
        self._depth = config.dino.depth

    def forward(self, query: Tensor, *keys_values: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = keys_values[: self._depth], keys_values[self._depth :]
        seen, attention = self.query.deep(query, keys, values, self.dino)
        return self.vision_to_language(seen), attention


class Language(nn.Module):
    """sequence (B, N, language dim) to states (B, N, language dim), and the queries they raise (B, N, dim)."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.language = Llama(config.language, config.sequence_length)
        self.language_to_query = nn.Linear(config.language.dim, config.dino.dim)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        states = self.language(sequence)
        return states, self.language_to_query(states)


def encode_frames(config: object) -> nn.Module:
    """EncodeFrames of a DinoConfig as JSON, weights not loaded. Raises InvalidArtifact for a wrong config."""
    return EncodeFrames(from_json(DinoConfig, config, "foveated-encode-frames config"))


def query_shallow(config: object) -> nn.Module:
    """ShallowQuery of a FoveatedConfig as JSON, likewise."""
    return ShallowQuery(from_json(FoveatedConfig, config, "foveated-query-shallow config"))


def query_deep(config: object) -> nn.Module:
    """DeepQuery of a FoveatedConfig as JSON, likewise."""
    return DeepQuery(from_json(FoveatedConfig, config, "foveated-query-deep config"))


def language(config: object) -> nn.Module:
    """Language of a FoveatedConfig as JSON, likewise."""
    return Language(from_json(FoveatedConfig, config, "foveated-language config"))


def predict(config: object) -> nn.Module:
    """FilmHead of a FoveatedConfig as JSON, likewise."""
    whole = from_json(FoveatedConfig, config, "foveated-predict config")
    return FilmHead(whole.head, whole.language.dim, whole.latent_channels)
