"""Grids of pictures and the curve of the loss, as PNG files."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sdscratch.files import atomic_write

__all__ = ["save_grid"]


def save_grid(pictures: Tensor, path: Path, columns: int) -> None:
    """Write [n, 3, H, W] in −1 to 1 as one PNG, row by row.

    Raises:
        SdscratchError: the operating system refuses.
    """
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    blank = torch.ones(rows * columns - n, 3, height, width)
    levels = ((torch.cat([pictures.float().cpu(), blank]).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    table = levels.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    grid = Image.fromarray(table.reshape(rows * height, columns * width, 3).numpy())
    with atomic_write(path, overwrite=True) as file:
        grid.save(file, "PNG")
