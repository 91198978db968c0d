"""FLUX.1's transformer and its VAE's decoder in plain torch, for machines without diffusers.

The published architecture, layer for layer and with the same number of parameters; names and layout are this file's
own, so real checkpoints do not fit. No dropout, no training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-6
_TIME_WIDTH = 256
_LONGEST_PERIOD = 10_000.0


class TwoLayers(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width_in: int, inner: int, width_out: int, activation: nn.Module) -> None:
        super().__init__()
        self.up, self.activation, self.down = nn.Linear(width_in, inner), activation, nn.Linear(inner, width_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.activation(self.up(x)))
        return y


class Modulation(nn.Module):
    """What the conditioning says to a block: ``parts`` vectors, each of shape (batch, 1, width)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.linear, self.parts = nn.Linear(width, parts * width), parts

    def forward(self, conditioning: Tensor) -> tuple[Tensor, ...]:
        return self.linear(functional.silu(conditioning))[:, None].chunk(self.parts, dim=-1)  # type: ignore[no-any-return]


class Heads(nn.Module):
    """Query, key and value of one stream, by head: three tensors of shape (batch, heads, tokens, head width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q = nn.RMSNorm(width // heads, eps=_EPSILON)
        self.norm_k = nn.RMSNorm(width // heads, eps=_EPSILON)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.norm_q(q), self.norm_k(k), v


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x``, normalised over its last axis, then shifted and scaled."""
    return functional.layer_norm(x, x.shape[-1:], eps=_EPSILON) * (1 + scale) + shift


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """``x`` of shape (…, tokens, head width), its pairs of neighbours turned by each token's angles."""
    cosine, sine = rotation
    first, second = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def rotations(positions: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (tokens, half the head width), for positions of shape (tokens, number of axes)."""
    angles = []
    for axis, width in enumerate(axes):
        exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
        angles.append(positions[:, axis, None].float() * _LONGEST_PERIOD**-exponents)
    angle = torch.cat(angles, dim=-1)
    return angle.cos(), angle.sin()


def attended(q: Tensor, k: Tensor, v: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Attention of all tokens to all, of shape (batch, tokens, width)."""
    mixed = functional.scaled_dot_product_attention(rotated(q, rotation), rotated(k, rotation), v)
    return mixed.transpose(1, 2).flatten(-2)


class Stream(nn.Module):
    """One of a double block's two streams: text or image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, 6)
        self.heads, self.out = Heads(width, heads), nn.Linear(width, width)
        self.feed_forward = TwoLayers(width, 4 * width, width, nn.GELU(approximate="tanh"))


class DoubleBlock(nn.Module):
    """Text and image have weights of their own, and attend together."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.text, self.image = Stream(width, heads), Stream(width, heads)

    def forward(
        self, text: Tensor, image: Tensor, conditioning: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        streams = ((self.text, text), (self.image, image))
        said = [stream.modulation(conditioning) for stream, _ in streams]
        heads = [stream.heads(modulated(x, *says[:2])) for (stream, x), says in zip(streams, said, strict=True)]
        q, k, v = (torch.cat(parts, dim=2) for parts in zip(*heads, strict=True))
        mixed = torch.split(attended(q, k, v, rotation), [text.shape[1], image.shape[1]], dim=1)
        done = []
        for (stream, x), says, seen in zip(streams, said, mixed, strict=True):
            _, _, gate, shift, scale, feed_gate = says
            x = x + gate * stream.out(seen)
            done.append(x + feed_gate * stream.feed_forward(modulated(x, shift, scale)))
        return done[0], done[1]


class SingleBlock(nn.Module):
    """One stream; attention and feed-forward side by side, joined by one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation, self.heads = Modulation(width, 3), Heads(width, heads)
        self.up, self.out = nn.Linear(width, 4 * width), nn.Linear(5 * width, width)

    def forward(self, x: Tensor, conditioning: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        shift, scale, gate = self.modulation(conditioning)
        y = modulated(x, shift, scale)
        inner = functional.gelu(self.up(y), approximate="tanh")
        q, k, v = self.heads(y)
        mixed = attended(q, k, v, rotation)
        done: Tensor = x + gate * self.out(torch.cat((mixed, inner), dim=-1))
        return done


class FluxTransformer(nn.Module):
    """Predicts the velocity of packed latents. Without guidance, as FLUX.1 [schnell] is."""

    def __init__(
        self,
        *,
        channels: int,
        double_blocks: int,
        single_blocks: int,
        heads: int,
        head_width: int,
        joint_width: int,
        pooled_width: int,
        rope_axes: tuple[int, ...],
    ) -> None:
        super().__init__()
        if sum(rope_axes) != head_width:
            raise ValueError(f"rope axes of {sum(rope_axes)} in all for heads of {head_width}")
        width = heads * head_width
        self.rope_axes = rope_axes
        self.image_in, self.text_in = nn.Linear(channels, width), nn.Linear(joint_width, width)
        self.time_in = TwoLayers(_TIME_WIDTH, width, width, nn.SiLU())
        self.pooled_in = TwoLayers(pooled_width, width, width, nn.SiLU())
        self.double_blocks = nn.ModuleList(DoubleBlock(width, heads) for _ in range(double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(width, heads) for _ in range(single_blocks))
        self.modulation_out, self.out = Modulation(width, 2), nn.Linear(width, channels)

    def forward(
        self, latents: Tensor, prompt: Tensor, pooled: Tensor, time: Tensor, positions: tuple[Tensor, Tensor]
    ) -> Tensor:
        """(batch, image tokens, channels) like ``latents``.

        ``prompt``: (batch, text tokens, joint width). ``pooled``: (batch, pooled width). ``time``: (batch,), 1 to 0.
        ``positions``: of the text tokens and of the image tokens, each (tokens, number of axes).
        """
        conditioning = self.time_in(_waves(time).to(latents.dtype)) + self.pooled_in(pooled)
        text, image = self.text_in(prompt), self.image_in(latents)
        rotation = rotations(torch.cat(positions), self.rope_axes)
        for block in self.double_blocks:
            text, image = block(text, image, conditioning, rotation)
        both = torch.cat((text, image), dim=1)
        for block in self.single_blocks:
            both = block(both, conditioning, rotation)
        velocity: Tensor = self.out(modulated(both[:, text.shape[1] :], *self.modulation_out(conditioning)))
        return velocity


def _waves(time: Tensor) -> Tensor:
    """Cosines and sines of a thousand times the time, at frequencies that fall from 1 to 1/10,000."""
    half = _TIME_WIDTH // 2
    steps = torch.arange(half, dtype=torch.float32, device=time.device)
    angles = 1000 * time.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) / half * steps)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class Residual(nn.Module):
    """Two convolutions, each behind a group norm and SiLU, and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = group_norm(channels_in), nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm_2, self.conv_2 = group_norm(channels_out), nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1(functional.silu(self.norm_1(x)))
        y = self.conv_2(functional.silu(self.norm_2(y)))
        z: Tensor = self.shortcut(x) + y
        return z


class PixelAttention(nn.Module):
    """Every pixel attends to every other, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2).transpose(1, 2)[:, None]
        mixed = functional.scaled_dot_product_attention(self.query(pixels), self.key(pixels), self.value(pixels))
        return x + self.out(mixed[:, 0]).transpose(1, 2).unflatten(2, x.shape[2:])  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Twice the height and width: nearest pixels, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


class Decoder(nn.Module):
    """Latents (batch, latent channels, height, width) to an image (batch, 3, 8 × height, 8 × width)."""

    def __init__(self, *, latent_channels: int, block_channels: tuple[int, ...], layers_per_block: int) -> None:
        super().__init__()
        channels = block_channels[-1]
        parts: list[nn.Module] = [nn.Conv2d(latent_channels, channels, 3, padding=1)]
        parts += [Residual(channels, channels), PixelAttention(channels), Residual(channels, channels)]
        for level, wanted in enumerate(reversed(block_channels)):
            for _ in range(layers_per_block + 1):
                parts.append(Residual(channels, wanted))
                channels = wanted
            if level < len(block_channels) - 1:
                parts.append(Upsample(channels))
        parts += [group_norm(channels), nn.SiLU(), nn.Conv2d(channels, 3, 3, padding=1)]
        self.parts = nn.Sequential(*parts)

    def forward(self, latents: Tensor) -> Tensor:
        image: Tensor = self.parts(latents)
        return image


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=_EPSILON)
