"""A small text embedder. The first replica compiles it; all others start warm.

It shows all steps on a CPU, without weights: load the artifacts, compile, warm up, save.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from b10_transfer import load_compile_cache, save_compile_cache

logger = logging.getLogger(__name__)

LENGTHS = (32, 128)
"""Texts are padded to one of these lengths, in bytes. No other shape is compiled."""
WIDTH = 128


class Embedder(nn.Module):
    """Bytes of a text in, one vector of length 1 out."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(257, WIDTH, padding_idx=256)
        self.mixers = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(layers))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.embedding(tokens)
        for mixer, gate in zip(self.mixers, self.gates, strict=True):
            x = x + nn.functional.glu(gate(mixer(x.transpose(1, 2)).transpose(1, 2)))
        return nn.functional.normalize(self.norm(x).mean(dim=1), dim=-1)


class Model:
    """The model that Truss serves."""

    def __init__(self, **kwargs: Any) -> None:
        self._embed: Callable[[Tensor], Tensor] | None = None

    def load(self) -> None:
        torch.manual_seed(0)
        embedder = Embedder().eval()

        # Load before the first compilation, and compile with any result. After an ERROR (the log says why) this start
        # is as slow as without a cache. Without torch.compile, every request would be slow.
        loaded = load_compile_cache()
        logger.info("compile cache: %s", loaded.name)

        # dynamic=False: each length gets its own code, in any order of lengths. So all replicas compile the same code
        # and hit the cache.
        self._embed = torch.compile(embedder, mode="max-autotune-no-cudagraphs", dynamic=False)
        for length in LENGTHS:
            self._run("warm up " * length, length)

        # Save after the warm-up has compiled all shapes, whatever the load returned: a save publishes only new units,
        # and returns SKIPPED in a fraction of a second if there are none. If requests can bring new shapes, pass
        # autosave=True to the load instead.
        save_compile_cache()

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{"text": …}`` to ``{"embedding": […]}``; text beyond the longest length is ignored."""
        text = request["text"]
        size = len(text.encode())
        length = next((length for length in LENGTHS if size <= length), LENGTHS[-1])
        return {"embedding": self._run(text, length).tolist()}

    def _run(self, text: str, length: int) -> Tensor:
        assert self._embed is not None, "load() comes first"
        tokens = list(text.encode()[:length])
        tokens += [256] * (length - len(tokens))
        with torch.no_grad():
            return self._embed(torch.tensor([tokens]))[0]
