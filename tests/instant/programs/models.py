"""Small models of many kinds. What a test changes between two processes is marked: ``sed`` replaces it in a copy."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SCALE = 2.0
FLAG = True
TABLE = {"gain": 1.5}
EXCHANGED = torch.sin


def helper(x: Tensor) -> Tensor:
    return x * 3.0  # changed: source


def other_helper(x: Tensor) -> Tensor:
    return x * 5.0


class MLP(nn.Module):
    def __init__(self, width: int = 8, gain: float = 1.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
        self.gain = gain
        self.activation = F.relu
        self.function = torch.sin

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(self.activation(self.net(x))) * self.gain
        return y


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.two(F.relu(self.norm(self.one(x)))).mean((2, 3))
        return y


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.mlp = Attention(), nn.LayerNorm(8), MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        y: Tensor = x + self.mlp(x)
        return y


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates, self.state = nn.Linear(8, 16), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = torch.zeros(x.shape[0], 4)
        for step in x.unbind(1):
            i, f, g, o = (self.gates(step) + self.state(hidden)).chunk(4, -1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.head(self.embedding(tokens))
        return y


class Counting(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * self.calls


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.linear(x))
        return y * 2 if self.training else y


class Broken(nn.Module):
    """With graph breaks, one of them in a function that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def part(self, x: Tensor) -> Tensor:
        x = torch.sin(x)
        torch._dynamo.graph_break()
        return x * 2

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        torch._dynamo.graph_break()
        return self.part(x).cos()


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        return y + 1 if y.sum() > 0 else y - 1


class Structured(nn.Module):
    def forward(self, x: Tensor, *, scale: float = 1.0, extra: dict[str, Tensor] | None = None) -> dict[str, Any]:
        y = x * scale
        if extra is not None:
            y = y + extra["bias"]
        return {"y": y, "both": (x, y.sum()), "name": "structured"}


class Hyper(nn.Module):
    factor = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.size, self.name, self.options = 3, "plus", {"deep": [1, 2]}

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.factor + self.size + self.options["deep"][1]
        return x if self.name == "plus" else -x


class Decorated(nn.Module):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x) + 1


def uses_globals(x: Tensor) -> Tensor:
    return x * SCALE * TABLE["gain"] if FLAG else x


def uses_helper(x: Tensor) -> Tensor:
    return helper(x) + 1


def uses_exchanged(x: Tensor) -> Tensor:
    return EXCHANGED(x) + 1


def nested(x: Tensor) -> Tensor:
    def inner(y: Tensor) -> Tensor:
        return y.sin() + x

    return inner(x * 2)


def closure_of(value: float) -> Any:
    def closure(x: Tensor) -> Tensor:
        return x * value

    return closure


def threads(x: Tensor) -> Tensor:
    return x * torch.get_num_threads()


def rank(x: Tensor) -> Tensor:
    return x + torch.distributed.get_rank()


def listy(xs: list[Tensor], n: int) -> tuple[Tensor, ...]:
    return tuple(x * n for x in xs)


class Same:
    """Two functions of one qualified name and one first line are told apart."""

    first: ClassVar = [lambda x: x + 1, lambda x: x - 1]
