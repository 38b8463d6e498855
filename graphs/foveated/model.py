"""The foveated VLM: look at every frame once with the same question, then again with the one that the first raised."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.foveated.config import FoveatedConfig
from graphs.foveated.dino import Dino
from graphs.foveated.head import FilmHead
from graphs.foveated.llama import Llama
from graphs.foveated.query import QueryAttention

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
