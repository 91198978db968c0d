"""Compile a real transformer with torch.compile, on the CPU, so that Inductor's cache directory is filled.

Run as a program, with ``TORCHINDUCTOR_CACHE_DIR`` naming the directory; takes about a minute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, VOCABULARY, LENGTH = 256, 4, 6, 2048, 64


class Block(nn.Module):
    """Causal self-attention and a gated feed-forward layer, each behind an RMS norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(WIDTH)
        self.attention_in = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.attention_out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.feed_norm = nn.RMSNorm(WIDTH)
        self.feed_in = nn.Linear(WIDTH, 8 * WIDTH, bias=False)
        self.feed_out = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        parts = self.attention_in(self.attention_norm(x)).chunk(3, dim=-1)
        query, key, value = (part.view(batch, length, HEADS, -1).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(attended.transpose(1, 2).reshape(batch, length, WIDTH))
        gate, up = self.feed_in(self.feed_norm(x)).chunk(2, dim=-1)
        return x + self.feed_out(functional.silu(gate) * up)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A decoder."""

    def __init__(self, layers: int = LAYERS) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


def main() -> None:
    torch.manual_seed(0)
    model = Transformer()
    compiled = torch.compile(model, dynamic=False)
    for batch in (1, 4):
        tokens = torch.randint(VOCABULARY, (batch, LENGTH))
        # Training compiles a joint graph and a backward one as well.
        compiled(tokens).square().mean().backward()
        with torch.no_grad():
            compiled(tokens)


if __name__ == "__main__":
    main()
