"""The captioner's text networks: a small transformer decoder (Vaswani et al., 2017) and an encoder."""

import numpy as np
import torch
from torch import Tensor, nn

from backends.tensor import Array
from graphs.networks.attention import attend, join_heads, split_heads
from graphs.networks.captioner.config import PADDING, CaptionerConfig

# Added to the scores of positions that must not be seen: its exp is 0, and it is finite in every precision.
HIDDEN = -1e4


class Attention(nn.Module):
    """Multi-head attention whose keys and values are computed separately, so that they can be kept."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of x (B, N, dim), each (B, heads, N, d)."""
        return split_heads(self.k_proj(x), self.num_heads), split_heads(self.v_proj(x), self.num_heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from x (B, M, dim) to keys and values (B, heads, N, d). mask (M, N) is added to the scores.

        Returns (B, M, dim).
        """
        out: Tensor = self.out_proj(join_heads(attend(split_heads(self.q_proj(x), self.num_heads), keys, values, mask)))
        return out

    def over_one(self, token: Tensor) -> Tensor:
        """Return the attention over a single token (B, dim), which is the same for every query: (B, dim).

        The softmax of one score is 1, whatever the query and the key are: only the token's value is left.
        """
        out: Tensor = self.out_proj(self.v_proj(token))
        return out


class DecoderLayer(nn.Module):
    """Post-norm decoder layer: self-attention, attention over the memory, MLP with ReLU."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        dim = config.embedding
        self.self_attn = Attention(dim, config.num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = Attention(dim, config.num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, config.mlp_dim)
        self.linear2 = nn.Linear(config.mlp_dim, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, mask: Tensor, past: tuple[Tensor, Tensor] | None, remembered: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layer on x (B, M, dim), after tokens whose keys and values `past` holds, each (B, heads, N, d).

        mask (M, N + M) is added to the scores; remembered (B, dim) is the attention over the memory. Returns x, and the
        keys and values of x, each (B, heads, M, d).
        """
        keys, values = self.self_attn.keys_values(x)
        seen_keys = keys if past is None else torch.cat([past[0], keys], dim=2)
        seen_values = values if past is None else torch.cat([past[1], values], dim=2)
        x = self.norm1(x + self.self_attn(x, seen_keys, seen_values, mask))
        x = self.norm2(x + remembered[:, None])
        return self.norm3(x + self.linear2(self.linear1(x).relu())), keys, values


class TextDecoder(nn.Module):
    """Text decoder: latent and tokens to the logits of the next token.

    Keys and values of all layers lie one after the other on the axis of heads: (B, depth * heads, N, d).
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.total_heads = config.depth * config.num_heads
        self.to_memory = nn.Linear(config.latent, config.embedding)
        self.embed_tokens = nn.Embedding(config.vocabulary, config.embedding)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.depth))
        self.to_logits = nn.Linear(config.embedding, config.vocabulary)
        self._positions = torch.from_numpy(sinusoids(config.max_tokens, config.embedding))

    def forward(self, latent: Tensor, tokens: Tensor) -> Tensor:
        """Return logits (B, N, vocabulary) for latent (B, latent) and tokens (B, N) int: row i predicts token i + 1."""
        logits, _, _ = self.prefill(tokens, self.memory(latent))
        return logits

    def memory(self, latent: Tensor) -> Tensor:
        """Return each layer's attention over the one token that the latent becomes: (B, depth, embedding)."""
        token = self.to_memory(latent)
        return torch.stack([layer.cross_attn.over_one(token) for layer in self._blocks], dim=1)

    def prefill(self, tokens: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of forward, and the keys and values of the tokens."""
        length = tokens.shape[1]
        x = self.embed_tokens(tokens) + self._positions[:length]
        mask = torch.full((length, length), HIDDEN).triu(1)
        return self._run(x, mask, None, memory)

    def step(
        self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode one more token (B, 1) int at `position` (1,) int.

        Only the first `position` of the given keys and values are used. Returns the logits (B, 1, vocabulary), keys and
        values of the token.
        """
        x = self.embed_tokens(token) + self._positions.index_select(0, position)
        room = torch.arange(keys.shape[2], dtype=position.dtype)
        mask = torch.cat([(room >= position).to(x.dtype) * HIDDEN, torch.zeros(1)])[None]
        return self._run(x, mask, (keys, values), memory)

    @property
    def _blocks(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def _run(
        self, x: Tensor, mask: Tensor, past: tuple[Tensor, Tensor] | None, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        layers = self._blocks
        pasts = [None] * len(layers) if past is None else by_layer(past, len(layers))
        keys, values = [], []
        for layer, seen, remembered in zip(layers, pasts, memory.unbind(1), strict=True):
            x, k, v = layer(x, mask, seen, remembered)
            keys.append(k)
            values.append(v)
        return self.to_logits(x), torch.cat(keys, dim=1), torch.cat(values, dim=1)


class TextEncoder(nn.Module):
    """Text encoder: the mean of the embeddings, then Linear.

    Args of forward: tokens (B, N) int, padded. Returns (B, latent).
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.embedding)
        self.to_latent = nn.Linear(config.embedding, config.latent)

    def forward(self, tokens: Tensor) -> Tensor:
        counted = (tokens != PADDING).to(self.to_latent.weight.dtype)[..., None]
        mean = (self.embed_tokens(tokens) * counted).sum(dim=1) / counted.sum(dim=1)
        latent: Tensor = self.to_latent(mean)
        return latent


def by_layer(pair: tuple[Tensor, Tensor], depth: int) -> list[tuple[Tensor, Tensor]]:
    """Split keys and values (B, depth * heads, N, d) by layer: a pair of (B, heads, N, d) for each."""
    return list(zip(*(part.chunk(depth, dim=1) for part in pair), strict=True))


def sinusoids(length: int, dim: int) -> Array:
    """Return fixed positions (length, dim) float32: sine in the even channels, cosine in the odd ones."""
    angles = np.arange(length)[:, None] * np.exp(np.arange(0, dim, 2) * (-np.log(10_000.0) / dim))
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, dim).astype(np.float32)
