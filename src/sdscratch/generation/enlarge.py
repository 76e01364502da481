"""Pictures and latents made larger: by interpolation, or by an upscaler's network."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sdscratch.addons.upscaler import UpscalerFile, open_upscaler
from sdscratch.device import Placement, out_of_memory_explained
from sdscratch.errors import UsageError
from sdscratch.fast.prepare import prepare
from sdscratch.fast.seamless import make_seamless
from sdscratch.fast.upscale import upscaled_bands
from sdscratch.generation.networks import NotFiniteError, dtype_of
from sdscratch.options.large import LATENT_UPSCALERS, PIXEL_UPSCALERS

__all__ = ["Upscaler", "enlarged_latent", "resized"]

log = logging.getLogger(__name__)

BUDGET = 2**25  # numbers of a band: 134 MB in float32
PIECE = 64  # pixels a side of what is timed
MOST_RUNS = 3  # of a network, until the size is reached: as in the web UI
FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
}


def enlarged_latent(latent: Tensor, size: tuple[int, int], upscaler: str) -> Tensor:
    """A latent [n, c, h, w] brought to (height, width), by one of `LATENT_UPSCALERS`."""
    mode, antialias = LATENT_UPSCALERS[upscaler]
    larger: Tensor = F.interpolate(latent, size=size, mode=mode, antialias=antialias)
    return larger


def resized(image: Image.Image, size: tuple[int, int], upscaler: str = "lanczos") -> Image.Image:
    """A picture brought to (width, height), by one of `PIXEL_UPSCALERS`."""
    return image if image.size == size else image.resize(size, FILTERS[upscaler])


class Upscaler:
    """What enlarges pictures, by name: one of `PIXEL_UPSCALERS`, or a file's network.

    A network that gives NaN in 16 bits is loaded again in float32, to stay.

    Args:
        name: as of `--hires-upscaler`.

    Raises:
        CheckpointError: a file that is missing, unreadable or no upscaler.
    """

    def __init__(self, name: str, placement: Placement) -> None:
        self.name = name
        self.placement = placement
        self.file: UpscalerFile | None = None if name in PIXEL_UPSCALERS else open_upscaler(name)
        self._network: nn.Module | None = None
        self._dtype = placement.dtype

    @property
    def scale(self) -> int | None:
        """How many times a network enlarges; None for a filter, which enlarges as wanted."""
        return None if self.file is None else self.file.config.scale

    def __call__(
        self,
        image: Image.Image,
        size: tuple[int, int],
        progress: Callable[[float], None] = lambda share: None,
        axes: str = "",
    ) -> Image.Image:
        """A picture brought to (width, height).

        A network is run until that is reached; what is too large then is made smaller by Lanczos' filter.

        Args:
            progress: told how much of a run is done, 0 to 1.
            axes: along which the picture tiles.

        Raises:
            SdscratchError: not finite in float32 either.
            DeviceError: out of memory.
            UsageError: the upscaler does not enlarge.
        """
        if self.file is None:
            return resized(image, size, self.name)
        for run in range(MOST_RUNS):
            if run and (image.width >= size[0] and image.height >= size[1]):
                break
            if run and self.scale == 1:
                break
            image = self.run(image, progress, axes)
        return resized(image, size)

    def estimate(self, image: Image.Image, size: tuple[int, int]) -> float | None:
        """How many seconds it will take, by a piece of the picture; None of one that is no larger."""
        width, height = (min(side, PIECE) for side in image.size)
        if self.scale is None or image.width * image.height < 4 * width * height:
            return None
        self.run(image.crop((0, 0, width, height)))  # the first is slower
        began = time.perf_counter()
        self.run(image.crop((0, 0, width, height)))
        seconds = (time.perf_counter() - began) * image.width * image.height / (width * height)
        again = self.scale > 1 and max(size[0] / image.width, size[1] / image.height) > self.scale
        return seconds * (1 + self.scale**2 if again else 1)

    def run(
        self,
        image: Image.Image,
        progress: Callable[[float], None] = lambda share: None,
        axes: str = "",
    ) -> Image.Image:
        """The network's own picture, `scale` times as large."""
        if self.file is None:
            raise UsageError(f"{self.name} is a filter, and has no scale of its own; ask for a size")
        with torch.inference_mode(), out_of_memory_explained():
            try:
                return self._run(image, progress, axes)
            except NotFiniteError as error:
                if error.final:
                    raise
                log.warning("%s; trying again in float32", error)
                self._network, self._dtype = None, torch.float32
                return self._run(image, progress, axes)

    def _run(self, image: Image.Image, progress: Callable[[float], None], axes: str) -> Image.Image:
        assert self.file is not None
        if self._network is None:
            self._network = prepare(self.file.load(self.placement.device, self._dtype))
        network, scale = self._network, self.file.config.scale
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.uint8).copy())
        picture = pixels.to(self.placement.device, dtype_of(network)).permute(2, 0, 1)[None] / 255.0
        made = np.empty((image.height * scale, image.width * scale, 3), dtype=np.uint8)
        make_seamless(network, axes)
        for top, band in upscaled_bands(network, picture, BUDGET, progress):
            if not torch.isfinite(band).all():
                raise NotFiniteError("upscaler", self.file.title, self._dtype)
            rows = (band[0].float().clamp(0.0, 1.0) * 255.0).round().to("cpu", torch.uint8)
            made[top : top + rows.shape[1]] = rows.permute(1, 2, 0).numpy()
        return Image.fromarray(made)
