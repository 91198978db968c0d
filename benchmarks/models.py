"""Small models whose starts are measured. As a program: fill Inductor's cache with a transformer, for the corpus."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, LENGTH, VOCABULARY = 256, 64, 2048


class Block(nn.Module):
    """Causal self-attention and a gated feed-forward layer, each after an RMS norm."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.attention_in, self.attention_out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed_in, self.feed_out = nn.Linear(WIDTH, 8 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attention_in(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(2))
        gate, up = self.feed_in(self.feed_norm(x)).chunk(2, dim=-1)
        return x + self.feed_out(functional.silu(gate) * up)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A decoder: token ids in, logits out."""

    def __init__(self, layers: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.Sequential(*(Block(heads) for _ in range(layers)))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(tokens)))  # type: ignore[no-any-return]


class Case(NamedTuple):
    """A model and its example input; ``length`` applies to models of sequences."""

    build: Callable[[], nn.Module]
    example: Callable[[int], Tensor]


def _tokens(batch: int) -> Callable[[int], Tensor]:
    return lambda length: torch.randint(VOCABULARY, (batch, length))


CASES = {
    "transformer": Case(lambda: Transformer(4, 8), _tokens(2)),
    "decoder": Case(lambda: Transformer(24, 4), _tokens(1)),
}


def main() -> None:
    torch.manual_seed(0)
    compiled = torch.compile(Transformer(6, 4), dynamic=False)
    for batch in (1, 4):
        tokens = torch.randint(VOCABULARY, (batch, LENGTH))
        compiled(tokens).square().mean().backward()  # training compiles a joint and a backward graph too
        with torch.no_grad():
            compiled(tokens)


if __name__ == "__main__":
    main()
