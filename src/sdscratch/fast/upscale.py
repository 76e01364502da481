"""Upscalers in bounded memory: by bands of rows, each read with as many more as its layers can see.

No layer of theirs looks at a whole picture, so that a band is exactly what it is in the whole. One dense
block sees five rows far, all of them hundreds; so a block is finished before the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from sdscratch.fast.features import Features
from sdscratch.fast.seamless import axes_of
from sdscratch.models.esrgan import CONVOLUTIONS, RESIDUAL, CompactUpscaler, RRDBNet

__all__ = ["upscaled_bands"]

Progress = Callable[[float], None]

LAYERS = 8  # of the compact network that are computed at once, each seeing a row farther
TAIL = 2  # rows that everything from the first upsampling on sees: 1 in the picture thrice, halved and so on
BODY = 0.92  # of ESRGAN's work, what is done at the small size
LEAST_ROWS = 16  # of a band, however wide the picture


def upscaled_bands(
    network: nn.Module, picture: Tensor, budget: int, progress: Progress = lambda share: None
) -> Iterator[tuple[int, Tensor]]:
    """`network(picture)`, to rounding, from top to bottom.

    Args:
        network: an upscaler of `models.esrgan`.
        picture: [1, 3, h, w] from 0 to 1.
        budget: how many numbers a band of features may have.
        progress: told of the share of the work that is done.

    Yields:
        The first row of a band, and the band [1, 3, ·, f·w].

    Raises:
        DeviceError: no room for a file of features.
    """
    if isinstance(network, RRDBNet):
        return _rrdb(network, picture, budget, progress)
    assert isinstance(network, CompactUpscaler)
    return _compact(network, picture, budget, progress)


def _rrdb(network: RRDBNet, picture: Tensor, budget: int, progress: Progress) -> Iterator[tuple[int, Tensor]]:
    config = network.config
    channels, scale = config.channels, config.scale
    dense = channels + (CONVOLUTIONS - 1) * config.growth
    wraps = "y" in axes_of(network)
    first = _all(Features.of(network.folded(picture), wraps=wraps), network.conv_first, 1, channels, budget)
    x = first
    for done, blocks in enumerate(network.blocks, start=1):
        assert isinstance(blocks, nn.ModuleList)
        y = x
        for index, block in enumerate(blocks):
            start = x if index == len(blocks) - 1 else None

            def added(band: Tensor, top: int, start: Features | None = start) -> Tensor:
                return band if start is None else start.rows(top, top + band.shape[2]) + RESIDUAL * band

            y = _all(y, block, CONVOLUTIONS, dense, budget, added)
        x = y
        progress(BODY * done / config.blocks)

    def with_first(band: Tensor, top: int) -> Tensor:
        return band + first.rows(top, top + band.shape[2])

    x = _all(x, network.conv_body, 1, channels, budget, with_first)
    height, width = (side * scale for side in picture.shape[2:])
    steps = 1 << config.upsamplings  # output rows of a row of features
    for top, band in _over(x, network.enlarged, TAIL, 2 * channels * steps**2, budget, steps):
        yield top * steps, band[:, :, : height - top * steps, :width]
        progress(BODY + (1.0 - BODY) * min(1.0, (top * steps + band.shape[2]) / height))


def _compact(
    network: CompactUpscaler, picture: Tensor, budget: int, progress: Progress
) -> Iterator[tuple[int, Tensor]]:
    x, scale = Features.of(picture, wraps="y" in axes_of(network)), network.config.scale
    layers = list(network.body)
    channels = max(network.config.channels, network.config.inputs * scale**2)
    for begin in range(0, len(layers), 2 * LAYERS):
        some = layers[begin : begin + 2 * LAYERS]
        x = _all(x, _in_turn(some), -(-len(some) // 2), channels, budget)
        progress(min(1.0, (begin + len(some)) / len(layers)))
    for top, band in _over(x, lambda band: band, 0, channels, budget):
        yield top * scale, network.enlarged(band, picture[:, :, top : top + band.shape[2]])


def _in_turn(layers: list[nn.Module]) -> Callable[[Tensor], Tensor]:
    def compute(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return compute


def _over(
    x: Features, compute: Callable[[Tensor], Tensor], halo: int, numbers: int, budget: int, scale: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """What `compute` makes of every band of x; `numbers` are those of a position, `scale` rows of one."""
    rows = max(LEAST_ROWS, budget // (x.width * numbers))
    for top in range(0, x.height, rows):
        bottom, above = min(top + rows, x.height), halo if x.wraps else min(top, halo)
        band = compute(x.rows(top - above, bottom + halo))
        yield top, band[:, :, scale * above : scale * (above + bottom - top)]


def _all(
    x: Features,
    compute: Callable[[Tensor], Tensor],
    halo: int,
    numbers: int,
    budget: int,
    then: Callable[[Tensor, int], Tensor] = lambda band, top: band,
) -> Features:
    """The same as features; `then` sees each band and its first row."""
    y: Features | None = None
    for top, band in _over(x, compute, halo, numbers, budget):
        band = then(band, top)
        if y is None:
            y = Features(band.shape[1], x.height, x.width, band, wraps=x.wraps)
        y.write(top, band)
    assert y is not None
    return y
