"""Scaled dot-product attention, written so that it exports to two matrix products, a softmax and their transposes."""

from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (B, N, heads * d) to (B, heads, N, d)."""
    batch, tokens, dim = x.shape
    return x.reshape(batch, tokens, heads, dim // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Reshape (B, heads, N, d) to (B, N, heads * d)."""
    batch, heads, tokens, dim = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * dim)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + mask), shape (B, heads, N, M).

    q (B, heads, N, d), k (B, heads, M, d), mask broadcast to (B, heads, N, M).
    """
    # Scales the queries, which are mostly fewer than the scores. A tensor as scale would have to be folded at export.
    scale: float = q.shape[-1] ** -0.5
    scores = (q * scale) @ k.transpose(-2, -1)
    return (scores if mask is None else scores + mask).softmax(dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the attention of all heads, (B, heads, N, d): v (B, heads, M, d), the others as in attention_weights."""
    return attention_weights(q, k, mask) @ v
