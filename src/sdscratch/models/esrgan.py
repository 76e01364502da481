"""Networks that make pictures larger: ESRGAN's (Wang et al. 2018), and Real-ESRGAN's compact one (2021).

Shapes: n pictures of h × w pixels from 0 to 1, f the scale. No layer looks at a whole picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.config import CompactConfig, RRDBConfig, UpscalerConfig

__all__ = ["CompactUpscaler", "DenseBlock", "RRDBNet", "upscaler_of"]

SLOPE = 0.2  # of leaky ReLUs
RESIDUAL = 0.2  # what residuals are scaled by (Wang et al., section 3.1)
DENSE = 3  # dense blocks in an RRDB
CONVOLUTIONS = 5  # in a dense block


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU, in the place of x, which nothing else may need, unless gradients flow through it."""
    return F.leaky_relu(x, SLOPE, inplace=not torch.is_grad_enabled())


class DenseBlock(nn.Module):
    """x + 0.2·conv(…): five convolutions, each of all that came before (Huang et al. 2017)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for index in range(CONVOLUTIONS):
            outputs = growth if index < CONVOLUTIONS - 1 else channels
            self.add_module(f"conv{index + 1}", nn.Conv2d(channels + index * growth, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] → the same."""
        seen = x
        for index in range(1, CONVOLUTIONS):
            seen = torch.cat([seen, leaky(self.get_submodule(f"conv{index}")(seen))], 1)
        return x + RESIDUAL * self.get_submodule(f"conv{CONVOLUTIONS}")(seen)


class RRDBNet(nn.Module):
    """Residuals in residuals of dense blocks, then nearest upsampling (Wang et al. 2018, figures 3 and 4).

    A network of less than its upsampling first folds squares of pixels into channels (Shi et al. 2016).
    """

    def __init__(self, config: RRDBConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.conv_first = nn.Conv2d(config.inputs * config.unshuffle**2, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(DenseBlock(channels, config.growth) for _ in range(DENSE))
            for _ in range(config.blocks)
        )
        self.conv_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.up = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.upsamplings)
        )
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, config.outputs, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """[n, 3, h, w] → [n, 3, f·h, f·w]."""
        height, width = (side * self.config.scale for side in picture.shape[2:])
        first = self.conv_first(self.folded(picture))
        x = first
        for dense in self.blocks:
            x = self.residual(dense, x)
        return self.enlarged(first + self.conv_body(x))[:, :, :height, :width]

    def folded(self, picture: Tensor) -> Tensor:
        """Squares of pixels as channels; sides that are no multiple go on as in a mirror."""
        square = self.config.unshuffle
        height, width = picture.shape[2:]
        more = -width % square, -height % square
        mode = "reflect" if min(width - more[0], height - more[1]) > 0 else "replicate"  # of 1 pixel: none
        picture = F.pad(picture, (0, more[0], 0, more[1]), mode=mode)
        return F.pixel_unshuffle(picture, square)

    def residual(self, dense: nn.Module, x: Tensor) -> Tensor:
        """One RRDB."""
        assert isinstance(dense, nn.ModuleList)
        y = x
        for block in dense:
            y = block(y)
        return x + RESIDUAL * y

    def enlarged(self, x: Tensor) -> Tensor:
        """Features → pixels."""
        for convolution in self.up:
            x = leaky(convolution(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(leaky(self.conv_hr(x)))


class CompactUpscaler(nn.Module):
    """Convolutions and PReLUs at the small size; what they give is added to the picture, pixels repeated.

    Real-ESRGAN's SRVGGNetCompact.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        body: list[nn.Module] = [nn.Conv2d(config.inputs, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(config.convolutions):
            body += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        body.append(nn.Conv2d(channels, config.inputs * config.scale**2, 3, padding=1))
        self.body = nn.ModuleList(body)

    def forward(self, picture: Tensor) -> Tensor:
        """[n, 3, h, w] → [n, 3, f·h, f·w]."""
        x = picture
        for layer in self.body:
            x = layer(x)
        return self.enlarged(x, picture)

    def enlarged(self, x: Tensor, picture: Tensor) -> Tensor:
        """What the last convolution gives, and the picture → pixels."""
        scale = self.config.scale
        return F.pixel_shuffle(x, scale) + F.interpolate(picture, scale_factor=scale, mode="nearest")


def upscaler_of(config: UpscalerConfig) -> nn.Module:
    """The network of this shape."""
    return RRDBNet(config) if isinstance(config, RRDBConfig) else CompactUpscaler(config)
