"""A Llama language model (Touvron et al., 2023; SmolLM2): RMSNorm, rotary positions, grouped queries, gated MLP."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.attention import attend, join_heads, split_heads
from graphs.networks.foveated.config import LlamaConfig
from graphs.networks.foveated.rope import Rotation, along_text

# Added to the scores of positions that must not be seen: its exp is 0, and it is finite in every precision.
HIDDEN = -1e4


class RMSNorm(nn.Module):
    """x divided by its root mean square, times a learned gain. x: (..., dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + 1e-5))


class Attention(nn.Module):
    """Grouped-query attention: several query heads share the keys and values of one head.

    Args of forward: x (B, N, dim) at the positions of `rotation`; past keys and values (B, kv_heads, P, d), or None;
    mask (N, P + N), added to the scores. Returns (B, N, dim), and the keys and values of x, (B, kv_heads, N, d).
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.num_kv_heads = config.num_kv_heads
        self.group = config.num_heads // config.num_kv_heads
        shared_dim = config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.k_proj = nn.Linear(config.dim, shared_dim, bias=False)
        self.v_proj = nn.Linear(config.dim, shared_dim, bias=False)
        self.o_proj = nn.Linear(config.dim, config.dim, bias=False)

    def forward(
        self, x: Tensor, rotation: Rotation, mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, _ = x.shape
        queries = rotation(split_heads(self.q_proj(x), self.num_kv_heads * self.group))
        keys = rotation(split_heads(self.k_proj(x), self.num_kv_heads))
        values = split_heads(self.v_proj(x), self.num_kv_heads)
        seen_keys = keys if past is None else torch.cat([past[0], keys], dim=2)
        seen_values = values if past is None else torch.cat([past[1], values], dim=2)
        # The queries of a group are laid out as if they were more tokens, so that no key or value is repeated.
        grouped = queries.reshape(batch, self.num_kv_heads, self.group * tokens, -1)
        out = attend(grouped, seen_keys, seen_values, mask.repeat(self.group, 1))
        out = out.reshape(batch, self.num_kv_heads * self.group, tokens, -1)
        return self.o_proj(join_heads(out)), keys, values


class MLP(nn.Module):
    """Gated MLP: down(silu(gate(x)) * up(x))."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer. Arguments and results are those of Attention."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim)
        self.mlp = MLP(config.dim, config.mlp_dim)

    def forward(
        self, x: Tensor, rotation: Rotation, mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, keys, values = self.self_attn(self.input_layernorm(x), rotation, mask, past)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), keys, values


class Decoder(nn.Module):
    """Embedding table, layers and final norm, in attributes with their published names."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.dim)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.dim)


class Llama(nn.Module):
    """A causal language model over at most `length` positions.

    Args of forward: x (B, N, dim) float32, embeddings of any kind. Returns the last hidden states, same shape.
    """

    def __init__(self, config: LlamaConfig, length: int) -> None:
        super().__init__()
        self.model = Decoder(config)
        self._rotation = along_text(config, length)

    def forward(self, x: Tensor) -> Tensor:
        states, _, _ = self.prefill(x)
        return states

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (B, N, dim) of tokens (B, N) int."""
        out: Tensor = self.model.embed_tokens(tokens)
        return out

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits (B, N, vocabulary) of states (B, N, dim), by the embedding table."""
        return F.linear(states, self.model.embed_tokens.weight)

    def prefill(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the states of forward, and the keys and values of all layers, each (B, depth * kv_heads, N, d)."""
        tokens = x.shape[1]
        mask = torch.full((tokens, tokens), HIDDEN).triu(1)
        return self._layers(x, self._rotation.first(tokens), mask, None)

    def step(self, x: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the model on one more token, x (B, 1, dim) at `position` (1,) int, after the tokens of keys and values.

        keys, values: (B, depth * kv_heads, P, d), of which only the first `position` tokens are used.
        Returns the state (B, 1, dim), and the keys and values of the token, each (B, depth * kv_heads, 1, d).
        """
        room = keys.shape[2]
        hidden = (torch.arange(room, dtype=position.dtype) >= position).to(x.dtype) * HIDDEN
        mask = torch.cat([hidden, torch.zeros(1)])[None]
        return self._layers(x, self._rotation.at(position), mask, (keys, values))

    def _layers(
        self, x: Tensor, rotation: Rotation, mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        depth = len(self.model.layers)
        pasts = [None] * depth if past is None else zip(*(part.chunk(depth, dim=1) for part in past), strict=True)
        keys, values = [], []
        for layer, seen in zip(self.model.layers, pasts, strict=True):
            x, k, v = layer(x, rotation, mask, seen)
            keys.append(k)
            values.append(v)
        return self.model.norm(x), torch.cat(keys, dim=1), torch.cat(values, dim=1)
