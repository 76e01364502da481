"""Features too large to hold: read and written by rows, in memory or in a file that is mapped into it."""

from __future__ import annotations

import mmap
import os
import tempfile
from math import prod
from typing import BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.errors import DeviceError

__all__ = ["MAPPED", "Features"]

MAPPED = 2**28  # bytes, from which on features lie in a file: there the system may write them out


class Features:
    """What a layer gives of one picture, [1, c, h, w], of which only bands of rows are looked at.

    Many rows lie in a file without a name in the system's folder for temporary files (`TMPDIR`), which is
    gone when they are. A GPU's lie in its memory, or in such a file, too.

    Args:
        channels, height, width: c, h and w.
        like: of whose type they are, and on whose device bands are.
        wraps: what is above the first row is the last (circular padding).

    Raises:
        DeviceError: there is no room for the file.
    """

    def __init__(self, channels: int, height: int, width: int, like: Tensor, *, wraps: bool = False) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.device, self.wraps = like.device, wraps
        shape = (height, width, channels)
        size = prod(shape) * like.element_size()
        if size < MAPPED:
            self._rows = torch.empty(shape, dtype=like.dtype, device=like.device)
        else:
            self._rows = _mapped(size, like.dtype).view(shape)

    @classmethod
    def of(cls, x: Tensor, *, wraps: bool = False) -> Features:
        """A tensor [1, c, h, w] as features."""
        _, channels, height, width = x.shape
        features = cls(channels, height, width, x, wraps=wraps)
        features.write(0, x)
        return features

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows from `top` up to `bottom`, [1, c, ·, w] in channels_last.

        Those beyond the picture are left out; where it wraps, they are there.
        """
        if not self.wraps:
            return self._taken(slice(max(top, 0), min(bottom, self.height)))
        if top >= 0 and bottom <= self.height:
            return self._taken(slice(top, bottom))
        parts = [self._taken(slice(row % self.height, row % self.height + 1)) for row in range(top, bottom)]
        return torch.cat(parts, 2)

    def padded_rows(self, top: int, bottom: int) -> Tensor:
        """The same with zeros beyond the picture."""
        rows = self.rows(top, bottom)
        if self.wraps:
            return rows
        return F.pad(rows, (0, 0, max(-top, 0), max(bottom - self.height, 0)))

    def write(self, top: int, band: Tensor) -> None:
        """Set the rows from `top` on, as many as the band [1, c, ·, w] has."""
        self._rows[top : top + band.shape[2]] = band[0].permute(1, 2, 0)

    def whole(self) -> Tensor:
        """All of them, in the device's memory."""
        return self.rows(0, self.height)

    def _taken(self, rows: slice) -> Tensor:
        # a copy: what is computed of it may be written in its place
        return self._rows[rows].to(self.device, copy=True).permute(2, 0, 1)[None]


def _mapped(size: int, dtype: torch.dtype) -> Tensor:
    """So many bytes of a file that has no name, as a tensor."""
    try:
        with tempfile.TemporaryFile() as file:
            _reserve(file, size)
            return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype)
    except OSError as error:
        raise DeviceError(
            f"no room for {size / 1e9:.1f} GB of features in {tempfile.gettempdir()} ({error.strerror}); "
            "set TMPDIR to a folder with more, or ask for a smaller picture"
        ) from error


def _reserve(file: BinaryIO, size: int) -> None:
    """Make a file so long; where the system can, with its room, for a full disk would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
