"""How a query looks at a frame: a glance at what the encoder made of it, or a walk through all of its blocks."""

from collections.abc import Sequence

from torch import Tensor, nn

from graphs.attention import attention_weights
from graphs.foveated.config import DinoConfig
from graphs.foveated.dino import Dino


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
