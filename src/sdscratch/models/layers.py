"""What U-Net and autoencoder share: residual blocks, up- and downsampling.

Shapes: n pictures, c channels, h × w positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Downsample", "ResidualBlock", "Upsample", "plus", "silu"]


def silu(x: Tensor) -> Tensor:
    """x·σ(x); in the place of x, which nothing else may need, unless gradients flow through it.

    A new tensor of tens of megabytes costs more than what is computed into it: its pages come from the
    operating system, each zeroed first.
    """
    return F.silu(x, inplace=not torch.is_grad_enabled())


def plus(x: Tensor, y: Tensor) -> Tensor:
    """x + y; in the place of x, as in `silu`."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))) (He et al. 2016; time added as in Ho et al. 2020).

    Args:
        time: width of the time embedding; None for the autoencoder, which has none.
        eps: GroupNorm's: 1e-5 in the U-Net, 1e-6 in the autoencoder. On activations near zero the
            difference shows; on others it hides in rounding.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, eps: float, time: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs) if time is not None else None
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """x [n, inputs, h, w], time [n, time] after its last silu → [n, outputs, h, w]."""
        h = self.conv1(silu(self.norm1(x)))
        if self.time is not None and time is not None:
            h = plus(h, self.time(time)[:, :, None, None])
        h = self.conv2(silu(self.norm2(h)))
        return plus(h, x if self.skip is None else self.skip(x))


class Downsample(nn.Module):
    """A 3×3 convolution of stride 2, which halves the picture.

    Args:
        padding: (left, right, top, bottom). The U-Net pads all four sides by one, the autoencoder only
            right and bottom: taking one for the other shifts the picture by half a position.
    """

    def __init__(self, channels: int, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] → [n, c, ⌈h/2⌉, ⌈w/2⌉] (rounded down with the autoencoder's padding)."""
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    """Every position repeated, then a 3×3 convolution (Odena et al. 2016: no checkerboards)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """[n, c, h, w] → [n, c, 2h, 2w], or `size` where the skip to be met is one position smaller."""
        height, width = size or (2 * x.shape[2], 2 * x.shape[3])
        return self.conv(F.interpolate(x, size=(height, width), mode="nearest"))
