"""Folders of pictures for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sdscratch.training.dataset.folder import read_folder
from sdscratch.training.dataset.folder_source import FolderSource, Framing, open_folder

__all__ = ["captioned", "folder_source", "noise_picture", "reasons"]


def noise_picture(path: Path, width: int = 64, height: int = 64, seed: int = 0) -> Path:
    """Write a picture of noise, another for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(levels).save(path)
    return path


def captioned(root: Path, count: int = 6, sizes: tuple[tuple[int, int], ...] = ((64, 64),)) -> Path:
    """Pictures 00.png, 01.png, …, in turn of these sizes, each with its number for a caption."""
    for index in range(count):
        path = noise_picture(root / f"{index:02}.png", *sizes[index % len(sizes)], seed=index)
        path.with_suffix(".txt").write_text(f"number {index}")
    return root


def folder_source(
    root: Path, *, threads: int = 2, validation: Path | float = 0.0, **framing: int
) -> FolderSource:
    """A source at 64 pixels with two pictures a step, unless told otherwise."""
    return open_folder(
        root, Framing(**{"resolution": 64, "batch": 2} | framing), threads=threads, validation=validation
    )


def reasons(root: Path, **options: bool) -> dict[str, str]:
    """What a folder skips, and why."""
    return {each.path: each.reason for each in read_folder(root, **options).skipped}
