"""Pictures that tile: convolutions that see a picture's other side beyond its edge, along either axis.

Everything else in U-Net and autoencoder looks at positions alike, wherever they are: attention has no
notion of place here. Works on plain networks and on those that `prepare` has made.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.layers import Downsample, Upsample

__all__ = ["axes_of", "make_seamless", "padded"]

AXES = "xy"


def make_seamless(network: nn.Module, axes: str) -> None:
    """Let a network's convolutions wrap around along `axes` ("", "x", "y" or "xy"), in place.

    Without an axis every module is the one that it was: what does not tile costs nothing.
    """
    if axes == axes_of(network):
        return
    for name, module in list(network.named_modules()):
        if isinstance(module, _WRAPPED):
            network.set_submodule(name, module.plain)
    for name, module in list(network.named_modules()) if axes else ():
        parent = network.get_submodule(name.rpartition(".")[0])
        if isinstance(parent, Upsample | Downsample):
            continue  # their convolutions are part of them
        if isinstance(module, Upsample):
            network.set_submodule(name, CircularUpsample(module, axes))
        elif isinstance(module, Downsample):
            network.set_submodule(name, CircularDownsample(module, axes))
        elif padding := _padding(module):
            network.set_submodule(name, CircularConv(module, padding, axes))
    network.seamless = axes  # type: ignore[assignment]  # a name of ours, no module's


def axes_of(network: nn.Module) -> str:
    """Along which axes a network's pictures tile."""
    return str(getattr(network, "seamless", ""))


def padded(x: Tensor, padding: tuple[int, int, int, int], axes: str) -> Tensor:
    """[n, c, h, w] with `padding` (left, right, top, bottom): from its other side along `axes`, else zeros.

    Padding may be wider than a tiny picture.
    """
    left, right, top, bottom = padding
    for axis, sides in (("x", (left, right, 0, 0)), ("y", (0, 0, top, bottom))):
        if not any(sides):
            continue
        side = x.shape[3 if axis == "x" else 2]
        circular = axis in axes and max(sides) <= side
        x = F.pad(x, sides, mode="circular") if circular else F.pad(x, sides)
    return x


class CircularConv(nn.Module):
    """A convolution with zero padding whose results beside the edges are those of a torus.

    The picture is given a border of its other side; the results under it, which see zeros, are cut off.
    """

    def __init__(self, plain: nn.Module, padding: tuple[int, int], axes: str) -> None:
        super().__init__()
        self.plain, self.axes = plain, axes
        stride = getattr(plain, "stride", 1)
        self.stride: int = stride if isinstance(stride, int) else stride[0]
        # whole strides, so that results stand where they would without it
        above, beside = (-(-side // self.stride) * self.stride for side in padding)
        self.border = beside if "x" in axes else 0, above if "y" in axes else 0

    @property
    def bias(self) -> Tensor | None:
        """The convolution's."""
        bias: Tensor | None = self.plain.bias  # type: ignore[assignment]  # modules may have anything
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, ·, ·]."""
        right, bottom = self.border
        return _without(
            self.plain(padded(x, (right, right, bottom, bottom), self.axes)),
            right // self.stride,
            bottom // self.stride,
        )


class CircularUpsample(Upsample):
    """`Upsample`, in whichever form, likewise."""

    def __init__(self, plain: Upsample, axes: str) -> None:
        nn.Module.__init__(self)
        self.plain, self.axes = plain, axes
        self.border = int("x" in axes), int("y" in axes)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """[n, c, h, w] → [n, c, 2h, 2w], or `size`."""
        right, bottom = self.border
        border = (right, right, bottom, bottom)
        if size is None or tuple(size) == (2 * x.shape[2], 2 * x.shape[3]):
            return _without(self.plain(padded(x, border, self.axes)), 2 * right, 2 * bottom)
        x = F.interpolate(x, size=size, mode="nearest")  # odd: the last one is under the last alone
        return _without(self.plain.conv(padded(x, border, self.axes)), right, bottom)


class CircularDownsample(Downsample):
    """`Downsample` likewise."""

    def __init__(self, plain: Downsample, axes: str) -> None:
        nn.Module.__init__(self)
        self.plain, self.axes = plain, axes
        self.padding = plain.padding

    @property
    def conv(self) -> nn.Module:  # type: ignore[override]  # no module of its own: one registered twice
        """The convolution, which pads nothing."""
        return self.plain.conv

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] → [n, c, ⌈h/2⌉, ⌈w/2⌉]."""
        return self.conv(padded(x, self.padding, self.axes))


_WRAPPED = (CircularConv, CircularUpsample, CircularDownsample)


def _without(y: Tensor, beside: int, above: int) -> Tensor:
    """What lies within a border."""
    return y[:, :, above : y.shape[2] - above, beside : y.shape[3] - beside]


def _padding(module: nn.Module) -> tuple[int, int] | None:
    """The zeros above and beside a convolution's input, in whichever form; None for what has none."""
    padding = getattr(module, "padding", None)
    if not isinstance(padding, tuple) or not all(isinstance(side, int) for side in padding):
        return None
    return (padding[0], padding[1]) if len(padding) == 2 and any(padding) else None
