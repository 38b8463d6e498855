"""The two-pass model: query attention, prediction head, the whole model, and the networks that are exported."""

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
    """Attention of queries (B, dim), one for each frame, over the patches of their frames.

    A frame is encoded once for any number of queries, because its patches never attend to a query.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.query_proj = nn.Linear(config.dim, config.dim)
        self.output_proj = nn.Linear(config.dim, config.dim)

    def shallow(self, query: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to the encoder's last patches: softmax(Linear(query) . patches / sqrt(dim)), then Linear.

        query (B, dim), patches (B, P, dim) without class token and registers. Returns (B, dim), and the attention (B,
        P).
        """
        weights = attention_weights(self.query_proj(query)[:, None], patches)
        return self.output_proj((weights @ patches).squeeze(1)), weights.squeeze(1)

    def deep(
        self, query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], dino: Dino
    ) -> tuple[Tensor, Tensor]:
        """Run the query through every block of the encoder like a token without a position, then Linear.

        The query attends to the keys and values that the patches of its frame had there, see Dino.encode.
        Returns (B, dim), and the last block's attention (B, P), averaged over its heads.
        """
        states, weights = dino.look(query[:, None], keys, values)
        return self.output_proj(states.squeeze(1)), weights.squeeze(1)


class FilmHead(nn.Module):
    """The prediction head: the language model's state and the last latent to the next latent.

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
    """The encoder's outputs for frames: patches (B, P, dim); keys and values of each block, see Dino.encode."""

    patches: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


@dataclass(frozen=True)
class TwoPasses:
    """The results of both passes over a clip of T frames, the coarse pass first and then the fine one.

    coarse, fine: predicted latents (T, C, side, side). coarse_attention, fine_attention: over the patches, (T, side,
    side).
    """

    coarse: Tensor
    fine: Tensor
    coarse_attention: Tensor
    fine_attention: Tensor


class Foveated(nn.Module):
    """All networks of the two-pass model. Its methods are the parts that run on a device; forward runs both passes."""

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        vision, language = config.dino.dim, config.language.dim
        latent = (1, config.latent_channels, config.latent_side, config.latent_side)
        self.config = config
        self.dino = Dino(config.dino)
        self.language = Llama(config.language, config.sequence_length)
        self.query = QueryAttention(config.dino)
        self.q_static = nn.Parameter(torch.zeros(1, vision))  # query of the first pass, for every frame
        self.q_init = nn.Parameter(torch.zeros(1, vision))  # query of the second pass for the first frame
        self.vision_to_language = nn.Linear(vision, language)
        self.language_to_query = nn.Linear(language, vision)
        self.coarse_token = nn.Parameter(torch.zeros(1, language))
        self.fine_token = nn.Parameter(torch.zeros(1, language))
        self.head = FilmHead(config.head, language, config.latent_channels)
        self.z_vae_init = nn.Parameter(torch.zeros(latent))  # stands for the latent before the first frame

    def encode_frames(self, frames: Tensor) -> EncodedFrames:
        """Encode frames (B, 3, S, S) float32, normalised with ImageNet's mean and deviation.

        This is the costly part, and is done once for each frame.
        """
        tokens, keys, values = self.dino.encode(frames)
        return EncodedFrames(tokens[:, self.config.dino.prefix_tokens :], keys, values)

    def look(self, queries: Tensor, frames: EncodedFrames, how: Look) -> tuple[Tensor, Tensor]:
        """Query encoded frames, which is cheap: queries (B, vision dim), one for each frame.

        Returns tokens (B, language dim) and the attention (B, P).
        """
        if how == "shallow":
            seen, attention = self.query.shallow(queries, frames.patches)
        else:
            seen, attention = self.query.deep(queries, frames.keys, frames.values, self.dino)
        return self.vision_to_language(seen), attention

    def think(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """Run the language model on embeddings (B, N, language dim).

        Returns its states, same shape, and a query for the vision encoder from each state, (B, N, vision dim).
        """
        states = self.language(sequence)
        return states, self.language_to_query(states)

    def forward(self, frames: Tensor, text: Tensor, latents: Tensor | None, how: Look) -> TwoPasses:
        """Run both passes over one clip.

        frames (T, 3, S, S). text (N, language dim) with N >= 1; without a text, a single zero vector. latents (T, C,
        side, side): the true latents, from which each frame's successor is predicted; None stands for zeros.
        """
        encoded, length, count = self.encode_frames(frames), len(frames), len(text)
        if latents is None:
            latents = self.z_vae_init.new_zeros(length, *self.z_vae_init.shape[1:])
        previous = torch.cat([self.z_vae_init, latents[:-1]])

        z, coarse_attention = self.look(self.q_static.expand(length, -1), encoded, how)
        states, raised = self.think(torch.cat([text, self.coarse_token, z])[None])
        coarse = self.head(states[0, count : count + length], previous)

        # The state at frame t has seen frames 1 to t: it gives the query for frame t + 1.
        queries = torch.cat([self.q_init, raised[0, count + 1 : count + length]])
        z, fine_attention = self.look(queries, encoded, how)
        states, _ = self.think(torch.cat([text, self.fine_token, z])[None])
        fine = self.head(states[0, count : count + length], previous)
        side = self.config.dino.side
        return TwoPasses(coarse, fine, *(a.reshape(-1, side, side) for a in (coarse_attention, fine_attention)))

    def losses(self, passes: TwoPasses, latents: Tensor) -> dict[str, Tensor]:
        """Return the mean squared errors of both passes, and loss: loss_fine + lambda_coarse * loss_coarse."""
        coarse, fine = F.mse_loss(passes.coarse, latents), F.mse_loss(passes.fine, latents)
        return {"loss_coarse": coarse, "loss_fine": fine, "loss": fine + self.config.lambda_coarse * coarse}


class EncodeFrames(Dino):
    """The frame encoder, as it is exported.

    Args of forward: frames (B, 3, S, S). Returns patches (B, P, dim), then the keys (B * heads, d, P) of each block,
    then the values (B * heads, P, d) of each block.
    """

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # several results
        tokens, keys, values = self.encode(frames)
        return tokens[:, self.prefix_tokens :], *keys, *values


class ShallowQuery(nn.Module):
    """The shallow query, as it is exported.

    Args of forward: query (B, dim), patches (B, P, dim). Returns token (B, language dim) and attention (B, P).
    """

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.query = QueryAttention(config.dino)
        self.vision_to_language = nn.Linear(config.dino.dim, config.language.dim)

    def forward(self, query: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        seen, attention = self.query.shallow(query, patches)
        return self.vision_to_language(seen), attention


class DeepQuery(nn.Module):
    """The deep query, as it is exported.

    Args of forward: query (B, dim), then keys and values as EncodeFrames returns them. Returns token (B, language dim)
    and attention (B, P).
    """

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
    """The language model, as it is exported.

    Args of forward: sequence (B, N, language dim). Returns states (B, N, language dim), and the queries made from them,
    (B, N, dim).
    """

    def __init__(self, config: FoveatedConfig) -> None:
        super().__init__()
        self.language = Llama(config.language, config.sequence_length)
        self.language_to_query = nn.Linear(config.language.dim, config.dino.dim)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        states = self.language(sequence)
        return states, self.language_to_query(states)


def encode_frames(config: object) -> nn.Module:
    """Build an EncodeFrames from a DinoConfig as JSON, weights not loaded.

    Raises InvalidArtifact for a wrong config.
    """
    return EncodeFrames(from_json(DinoConfig, config, "foveated-encode-frames config"))


def query_shallow(config: object) -> nn.Module:
    """Build a ShallowQuery from a FoveatedConfig as JSON, weights not loaded.

    Raises InvalidArtifact for a wrong config.
    """
    return ShallowQuery(from_json(FoveatedConfig, config, "foveated-query-shallow config"))


def query_deep(config: object) -> nn.Module:
    """Build a DeepQuery, as query_shallow builds a ShallowQuery."""
    return DeepQuery(from_json(FoveatedConfig, config, "foveated-query-deep config"))


def language(config: object) -> nn.Module:
    """Build a Language, as query_shallow builds a ShallowQuery."""
    return Language(from_json(FoveatedConfig, config, "foveated-language config"))


def predict(config: object) -> nn.Module:
    """Build a FilmHead, as query_shallow builds a ShallowQuery."""
    whole = from_json(FoveatedConfig, config, "foveated-predict config")
    return FilmHead(whole.head, whole.language.dim, whole.latent_channels)
