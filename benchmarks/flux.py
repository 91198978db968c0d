"""FLUX.1 [schnell] in its true configuration, and a tiny one, with random weights made where they are needed.

diffusers' classes if diffusers can be imported, the architecture of :mod:`benchmarks.flux_modules` otherwise. The text
encoders are left out: their outputs are random numbers here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.flux_modules import Decoder, FluxTransformer

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCALE_OF_LATENTS = 8
"""Pixels of an image for one of its latents, in each direction."""
_PATCH = 2
"""Latents that are packed to one token, in each direction."""
SEED = 20_26


@dataclass(frozen=True)
class Configuration:
    """All that the shapes follow from. ``image_side`` is in pixels, ``rope_axes`` in parts of a head's width."""

    double_blocks: int
    single_blocks: int
    heads: int
    head_width: int
    joint_width: int
    pooled_width: int
    rope_axes: tuple[int, ...]
    block_channels: tuple[int, ...]
    layers_per_block: int
    image_side: int
    prompt_tokens: int
    latent_channels: int = 16

    @property
    def channels(self) -> int:
        """Of a token: its packed latents."""
        return self.latent_channels * _PATCH**2

    @property
    def latent_side(self) -> int:
        return self.image_side // _SCALE_OF_LATENTS

    @property
    def image_tokens(self) -> int:
        return (self.latent_side // _PATCH) ** 2


FLUX = Configuration(
    double_blocks=19,
    single_blocks=38,
    heads=24,
    head_width=128,
    joint_width=4096,
    pooled_width=768,
    rope_axes=(16, 56, 56),
    block_channels=(128, 256, 512, 512),
    layers_per_block=2,
    image_side=1024,
    prompt_tokens=256,
)
"""What black-forest-labs/FLUX.1-schnell's configuration files say; an image of 1024 × 1024 and its longest prompt."""
TINY = Configuration(
    double_blocks=1,
    single_blocks=1,
    heads=2,
    head_width=32,
    joint_width=32,
    pooled_width=16,
    rope_axes=(4, 14, 14),
    block_channels=(32, 32),
    layers_per_block=0,
    image_side=64,
    prompt_tokens=16,
)
"""Every kind of layer once or twice, for a CPU: a few hundred thousand parameters."""
SHALLOW = replace(FLUX, double_blocks=2, single_blocks=4)
"""As wide as FLUX and with the same kernels, but a ninth as deep: where compiling all of it takes too long."""
SIZES = {"flux": FLUX, "shallow": SHALLOW, "tiny": TINY}
PARTS = ("transformer", "decoder")
"""What is compiled, in this order."""


@dataclass(frozen=True)
class Part:
    """A module to compile, and how it is called with inputs of its own."""

    module: nn.Module
    call: Callable[[], Tensor]

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())


def resolve_kind(kind: str) -> str:
    """``diffusers`` or ``own``; ``auto`` is diffusers if it is installed. Whether it also imports is not tried."""
    if kind == "auto":
        return "diffusers" if find_spec("diffusers") else "own"
    return kind


def build(part: str, configuration: Configuration, kind: str, device: torch.device, dtype: torch.dtype) -> Part:
    """Make a part with random weights and inputs on a device; the same ones in every process on the same device.

    Nothing is made on the host first. Raises ImportError if ``kind`` is diffusers and that cannot be had.
    """
    if device.type != "meta":
        torch.manual_seed(SEED)
    with device, _default_dtype(dtype):
        if part == "transformer":
            made = _diffusers_transformer if kind == "diffusers" else _own_transformer
        else:
            made = _diffusers_decoder if kind == "diffusers" else _own_decoder
        module, arguments = made(configuration)
    module.eval().requires_grad_(False)

    def call() -> Tensor:
        result = module(**arguments)
        output: Tensor = result[0] if isinstance(result, tuple) else result
        return output

    return Part(module, call)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


Made = tuple[nn.Module, dict[str, Any]]


def _own_transformer(configuration: Configuration) -> Made:
    module = FluxTransformer(
        channels=configuration.channels,
        double_blocks=configuration.double_blocks,
        single_blocks=configuration.single_blocks,
        heads=configuration.heads,
        head_width=configuration.head_width,
        joint_width=configuration.joint_width,
        pooled_width=configuration.pooled_width,
        rope_axes=configuration.rope_axes,
    )
    latents, prompt, pooled, time, of_text, of_image = _inputs(configuration)
    positions = (of_text, of_image)
    return module, {"latents": latents, "prompt": prompt, "pooled": pooled, "time": time, "positions": positions}


def _diffusers_transformer(configuration: Configuration) -> Made:
    from diffusers import FluxTransformer2DModel

    module = FluxTransformer2DModel(
        patch_size=1,
        in_channels=configuration.channels,
        num_layers=configuration.double_blocks,
        num_single_layers=configuration.single_blocks,
        attention_head_dim=configuration.head_width,
        num_attention_heads=configuration.heads,
        joint_attention_dim=configuration.joint_width,
        pooled_projection_dim=configuration.pooled_width,
        guidance_embeds=False,
        axes_dims_rope=configuration.rope_axes,
    )
    latents, prompt, pooled, time, of_text, of_image = _inputs(configuration)
    return module, {
        "hidden_states": latents,
        "encoder_hidden_states": prompt,
        "pooled_projections": pooled,
        "timestep": time,
        "img_ids": of_image,
        "txt_ids": of_text,
        "return_dict": False,
    }


def _own_decoder(configuration: Configuration) -> Made:
    module = Decoder(
        latent_channels=configuration.latent_channels,
        block_channels=configuration.block_channels,
        layers_per_block=configuration.layers_per_block,
    )
    return module, {"latents": _latents(configuration)}


def _diffusers_decoder(configuration: Configuration) -> Made:
    from diffusers.models.autoencoders.vae import Decoder as DiffusersDecoder

    module = DiffusersDecoder(
        in_channels=configuration.latent_channels,
        out_channels=3,
        up_block_types=("UpDecoderBlock2D",) * len(configuration.block_channels),
        block_out_channels=configuration.block_channels,
        layers_per_block=configuration.layers_per_block,
    )
    return module, {"sample": _latents(configuration)}


def _latents(configuration: Configuration) -> Tensor:
    return torch.randn(1, configuration.latent_channels, configuration.latent_side, configuration.latent_side)


def _inputs(configuration: Configuration) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Packed latents, prompt, pooled prompt, time, positions of the text's tokens and of the image's."""
    side = configuration.latent_side // _PATCH
    place = torch.arange(side * side)
    positions = torch.stack((torch.zeros_like(place), place // side, place % side), dim=-1)
    return (
        torch.randn(1, configuration.image_tokens, configuration.channels),
        torch.randn(1, configuration.prompt_tokens, configuration.joint_width),
        torch.randn(1, configuration.pooled_width),
        torch.ones(1),
        torch.zeros(configuration.prompt_tokens, 3),
        positions.to(torch.get_default_dtype()),
    )
