"""The transformer and the VAE decoder of FLUX.1 [schnell], from diffusers, with random weights.

The text encoders are left out: random numbers replace their outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn


class Size(NamedTuple):
    """Arguments of diffusers' classes, and the sizes of the inputs."""

    transformer: dict[str, Any]
    decoder: dict[str, Any]
    image_side: int
    """In pixels."""
    prompt_tokens: int


_WIDE: dict[str, Any] = {
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
}
_NARROW: dict[str, Any] = {
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 16,
    "axes_dims_rope": (4, 14, 14),
}
_VAE: dict[str, Any] = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
_SMALL_VAE: dict[str, Any] = {"block_out_channels": (32, 32), "layers_per_block": 0}
SIZES = {
    "flux": Size({"num_layers": 19, "num_single_layers": 38, **_WIDE}, _VAE, 1024, 256),
    "shallow": Size({"num_layers": 2, "num_single_layers": 4, **_WIDE}, _VAE, 1024, 256),
    "tiny": Size({"num_layers": 1, "num_single_layers": 1, **_NARROW}, _SMALL_VAE, 64, 16),
}
"""``flux`` follows the configuration files of black-forest-labs/FLUX.1-schnell, with its longest prompt. ``shallow``
has the same kernels and a ninth of the depth. ``tiny`` has every kind of layer, for a CPU."""
PARTS = ("transformer", "decoder")
_CHANNELS = 16
"""Of a latent. A latent stands for 8 × 8 pixels, a token for 2 × 2 latents."""


def build(name: str, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Any]]:
    """Build a model on a device, with its input.

    Args:
        name: ``flux SIZE PART``, for example ``flux tiny decoder``.
    """
    _, size, part = name.split()
    with device, _default_dtype(dtype):
        module, arguments = (_transformer if part == "transformer" else _decoder)(SIZES[size])
    return module.eval().requires_grad_(False), arguments


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _transformer(size: Size) -> tuple[nn.Module, dict[str, Any]]:
    from diffusers import FluxTransformer2DModel

    module = FluxTransformer2DModel(patch_size=1, in_channels=4 * _CHANNELS, guidance_embeds=False, **size.transformer)
    side = size.image_side // 16
    place = torch.arange(side * side)
    positions = torch.stack((torch.zeros_like(place), place // side, place % side), dim=-1)
    return module, {
        "hidden_states": torch.randn(1, side * side, 4 * _CHANNELS),
        "encoder_hidden_states": torch.randn(1, size.prompt_tokens, size.transformer["joint_attention_dim"]),
        "pooled_projections": torch.randn(1, size.transformer["pooled_projection_dim"]),
        "timestep": torch.ones(1),
        "img_ids": positions.to(torch.get_default_dtype()),
        "txt_ids": torch.zeros(size.prompt_tokens, 3),
        "return_dict": False,
    }


def _decoder(size: Size) -> tuple[nn.Module, dict[str, Any]]:
    from diffusers.models.autoencoders.vae import Decoder

    blocks = ("UpDecoderBlock2D",) * len(size.decoder["block_out_channels"])
    module = Decoder(in_channels=_CHANNELS, out_channels=3, up_block_types=blocks, **size.decoder)
    side = size.image_side // 8
    return module, {"sample": torch.randn(1, _CHANNELS, side, side)}
