"""Scaled dot-product attention, written so that it exports to two matrix products, a softmax and their transposes."""

from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) to (B, heads, N, d)."""
    batch, tokens, dim = x.shape
    return x.reshape(batch, tokens, heads, dim // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) to (B, N, heads * d)."""
    batch, heads, tokens, dim = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * dim)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask): q (B, heads, N, d), k (B, heads, M, d), mask broadcast to (B, heads, N, M)."""
    # On the queries, which are never more than the scores. A Python number: not a tensor that the exporter must fold.
    scale: float = q.shape[-1] ** -0.5
    scores = (q * scale) @ k.transpose(-2, -1)
    return (scores if mask is None else scores + mask).softmax(dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of all heads. v (B, heads, M, d). Returns (B, heads, N, d)."""
    return attention_weights(q, k, mask) @ v
