"""The models whose first call is measured: a transformer and a convolutional network, small ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, VOCABULARY, CONTEXT = 256, 8, 4, 1024, 64
CHANNELS, PIXELS = (32, 64, 128), 64


class _Layer(nn.Module):
    """Pre-norm causal attention and a gated feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(2))
        self.mixed, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gated, self.down = nn.Linear(WIDTH, 8 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mixed(self.norms[0](x)).unflatten(-1, (3, HEADS, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        gate, up = self.gated(self.norms[1](x)).chunk(2, dim=-1)
        y: Tensor = x + self.down(functional.silu(gate) * up)
        return y


class TransformerModel(nn.Module):
    """Token ids in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(x)
        return logits


class _Stage(nn.Module):
    """Halves the picture, then adds what two convolutions make of it."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.halve(x)
        y: Tensor = x + self.body(x)
        return y


class ConvolutionalNet(nn.Module):
    """Pictures in, scores of a hundred classes out."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *CHANNELS)
        self.stages = nn.Sequential(*(_Stage(*pair) for pair in pairwise(widths)))
        self.head = nn.Linear(CHANNELS[-1], 100)

    def forward(self, pictures: Tensor) -> Tensor:
        scores: Tensor = self.head(self.stages(pictures).mean((2, 3)))
        return functional.softmax(scores, dim=-1)


class Case(NamedTuple):
    """A model and what it is called with."""

    build: Callable[[], nn.Module]
    example: Callable[[], Tensor]


CASES = {
    "transformer": Case(TransformerModel, lambda: torch.randint(VOCABULARY, (2, CONTEXT))),
    "conv net": Case(ConvolutionalNet, lambda: torch.rand(2, 3, PIXELS, PIXELS)),
}
