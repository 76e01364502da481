"""The autoencoder in bounded memory: band by band of a picture's rows, and exactly what it is as a whole.

Two things in it look at all positions at once. GroupNorm divides by the statistics of a whole group; they
are summed while the layer before is computed, band by band, so that the next can normalise with them.
Attention is computed for blocks of queries. Everything else sees its neighbours alone: a band is read with a
row more above and below, whose results are dropped. A layer is finished before the next begins, and what it
gave lies in `Features`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.fast.features import Features
from sdscratch.fast.seamless import axes_of, padded
from sdscratch.models.layers import Downsample, ResidualBlock, Upsample, plus, silu
from sdscratch.models.vae import Decoder, Encoder, Gaussian, Middle, PositionAttention, steps

__all__ = ["decode_in_bands", "encode_in_bands"]

LEAST_ROWS = 8  # of a band, however wide the picture: the rows beyond it are computed in vain
AT_ONCE = 2**19  # numbers of which statistics are summed at once: they stay in the processor's cache


def decode_in_bands(decoder: Decoder, latent: Tensor, budget: int) -> Tensor:
    """`decoder(latent)`, to rounding.

    Args:
        latent: [1, c, h, w].
        budget: how many numbers a band of features may have.

    Returns:
        [1, 3, H, W].

    Raises:
        DeviceError: no room for a file of features.
    """
    return _Bands(budget, axes_of(decoder)).decode(decoder, latent)


def encode_in_bands(encoder: Encoder, picture: Tensor, budget: int) -> Gaussian:
    """`encoder(picture)`, to rounding; arguments as of `decode_in_bands`, but of [1, 3, H, W]."""
    return _Bands(budget, axes_of(encoder)).encode(encoder, picture)


class Moments:
    """Sums over all positions, channel by channel, from which a GroupNorm's statistics follow.

    Numbers are summed in float32 as far as the cache reaches, and those sums in float64. The first rows' mean
    is subtracted from all, so that squares are not of numbers far from zero.
    """

    def __init__(self, channels: int) -> None:
        self.channels, self.count = channels, 0
        self.shift: Tensor | None = None
        self.sums: list[Tensor] = []  # of blocks, where they were summed: a GPU is not waited for

    def add(self, band: Tensor) -> None:
        """Count a band [1, c, h, w] in."""
        positions = band[0].permute(1, 2, 0).flatten(0, 1)
        self.count += len(positions)
        for some in positions.split(max(1, AT_ONCE // positions.shape[1])):
            numbers = some.float()
            if self.shift is None:
                self.shift = numbers.mean(0)
            numbers = numbers - self.shift
            sums = torch.stack([numbers.sum(0), numbers.square_().sum(0)])
            self.sums.append(sums)

    def of_groups(self, groups: int) -> tuple[Tensor, Tensor]:
        """Every channel's mean and variance, which are its group's."""
        assert self.shift is not None
        total = torch.zeros(2, self.channels, dtype=torch.float64)
        for sums in torch.stack(self.sums).cpu().double():  # Apple's GPUs have no float64
            total += sums
        mean, square = total / self.count
        variance = square - mean.square()  # of each channel alone
        mean += self.shift.cpu().double()
        by_group = mean.view(groups, -1)
        of_group = by_group.mean(1, keepdim=True)
        variances = (variance.view(groups, -1) + (by_group - of_group).square()).mean(1, keepdim=True)
        return of_group.expand_as(by_group).flatten(), variances.expand_as(by_group).flatten()


class Norm:
    """A GroupNorm whose statistics are known."""

    def __init__(self, plain: nn.GroupNorm, moments: Moments) -> None:
        mean, variance = moments.of_groups(plain.num_groups)
        where = plain.weight.device
        self.statistics = mean.float().to(where), variance.float().to(where)
        self.affine = plain.weight.float(), plain.bias.float()
        self.eps = plain.eps

    def __call__(self, band: Tensor) -> Tensor:
        return F.batch_norm(band, *self.statistics, *self.affine, False, 0.0, self.eps)

    def activated(self, band: Tensor) -> Tensor:
        """Then silu."""
        return silu(self(band))


class Level(NamedTuple):
    """Features, and the sums over them that the next GroupNorm needs."""

    features: Features
    moments: Moments


class _Bands:
    """One picture's way through an autoencoder's half; `axes` are those along which it tiles."""

    def __init__(self, budget: int, axes: str) -> None:
        self.budget, self.axes = budget, axes
        self.wraps = "y" in axes

    def decode(self, decoder: Decoder, latent: Tensor) -> Tensor:
        x = self.middle(decoder.middle, self.convolved(self.source(decoder.quant(latent)), decoder.conv_in))
        for step in steps(decoder.up):
            x = self.step(step, x)
        return self.convolved(
            x.features, decoder.conv_out, Norm(decoder.norm_out, x.moments)
        ).features.whole()

    def encode(self, encoder: Encoder, picture: Tensor) -> Gaussian:
        x = self.convolved(self.source(picture), encoder.conv_in)
        for step in steps(encoder.down):
            x = self.step(step, x)
        x = self.middle(encoder.middle, x)
        x = self.convolved(x.features, encoder.conv_out, Norm(encoder.norm_out, x.moments))
        mean, log_variance = encoder.quant(x.features.whole()).chunk(2, dim=1)
        return Gaussian(mean, log_variance.clamp(-30.0, 20.0))

    def middle(self, middle: Middle, x: Level) -> Level:
        return self.residual(middle.block2, self.attention(middle.attention, self.residual(middle.block1, x)))

    def step(self, module: nn.Module, x: Level) -> Level:
        match module:
            case ResidualBlock():
                return self.residual(module, x)
            case Upsample():
                return self.upsampled(module, x.features)
            case Downsample():
                return self.downsampled(module, x.features)
        raise TypeError(f"an autoencoder has no {type(module).__name__}")

    def source(self, x: Tensor) -> Features:
        return Features.of(x, wraps=self.wraps)

    def bands(self, height: int, width: int, channels: int) -> Iterator[tuple[int, int]]:
        """Rows from, up to."""
        rows = max(LEAST_ROWS, self.budget // (width * channels))
        for top in range(0, height, rows):
            yield top, min(top + rows, height)

    def convolved(
        self,
        x: Features,
        convolution: nn.Module,
        norm: Norm | None = None,
        *,
        added: Callable[[int, int], Tensor] | None = None,
        into: Features | None = None,
    ) -> Level:
        """A 3×3 convolution with padding 1, of stride 1, over what `norm` and silu make of x.

        Args:
            added: what is added to the result's rows.
            into: where the result lies; may be what is added, for its rows are read before.
        """
        moments = None
        for top, bottom in self.bands(x.height, x.width, max(x.channels, _outputs(convolution))):
            seen = x.rows(top - 1, bottom + 1)
            above = 1 if x.wraps else min(top, 1)
            y = convolution(seen if norm is None else norm.activated(seen))
            y = y[:, :, above : above + bottom - top]
            if added is not None:
                y = plus(y, added(top, bottom))
            if into is None:
                into = Features(y.shape[1], x.height, x.width, y, wraps=self.wraps)
            if moments is None:
                moments = Moments(y.shape[1])
            moments.add(y)
            into.write(top, y)
        assert into is not None
        assert moments is not None
        return Level(into, moments)

    def residual(self, block: ResidualBlock, x: Level) -> Level:
        """`ResidualBlock.forward`, two convolutions one after the other."""
        features, skip = x.features, block.skip

        def added(top: int, bottom: int) -> Tensor:
            rows = features.rows(top, bottom)
            return rows if skip is None else skip(rows)

        h = self.convolved(features, block.conv1, Norm(block.norm1, x.moments))
        norm2 = Norm(block.norm2, h.moments)
        into = features if skip is None else None
        return self.convolved(h.features, block.conv2, norm2, added=added, into=into)

    def attention(self, attention: PositionAttention, x: Level) -> Level:
        """`PositionAttention.forward`, for blocks of positions; keys and values are those of all."""
        features, norm = x.features, Norm(attention.norm, x.moments)
        cuts = list(self.bands(features.height, features.width, features.channels))

        def tokens(top: int, bottom: int) -> Tensor:
            return norm(features.rows(top, bottom)).flatten(2).transpose(1, 2)

        seen = tokens(0, features.height)
        key, value = attention.key(seen), attention.value(seen)
        del seen
        moments = Moments(features.channels)
        for top, bottom in cuts:
            mixed = attention.out(attention.mix(attention.query(tokens(top, bottom)), key, value))
            band = features.rows(top, bottom)
            band = plus(mixed.transpose(1, 2).unflatten(2, band.shape[2:]), band)
            moments.add(band)
            features.write(top, band)
        return Level(features, moments)

    def upsampled(self, upsample: Upsample, x: Features) -> Level:
        """Twice as many rows and columns; a row of x is under two of them."""
        y = Features(x.channels, 2 * x.height, 2 * x.width, x.rows(0, 1), wraps=self.wraps)
        moments = Moments(x.channels)
        for top, bottom in self.bands(x.height, 4 * x.width, x.channels):
            above = 1 if x.wraps else min(top, 1)
            band = upsample(x.rows(top - 1, bottom + 1))[:, :, 2 * above : 2 * (above + bottom - top)]
            moments.add(band)
            y.write(2 * top, band)
        return Level(y, moments)

    def downsampled(self, downsample: Downsample, x: Features) -> Level:
        """A convolution of stride 2 whose padding the module tells."""
        left, right, above, below = downsample.padding
        height, width = ((x.height + above + below - 3) // 2 + 1, (x.width + left + right - 3) // 2 + 1)
        y = Features(x.channels, height, width, x.rows(0, 1), wraps=self.wraps)
        moments = Moments(x.channels)
        for top, bottom in self.bands(height, 4 * width, x.channels):
            seen = x.padded_rows(2 * top - above, 2 * bottom - above + 1)
            band = downsample.conv(padded(seen, (left, right, 0, 0), self.axes))
            moments.add(band)
            y.write(top, band)
        return Level(y, moments)


def _outputs(convolution: nn.Module) -> int:
    """How many channels a convolution of any form gives."""
    assert isinstance(convolution.bias, Tensor)
    return convolution.bias.numel()
