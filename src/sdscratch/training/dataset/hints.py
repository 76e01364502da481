"""Hints of a folder's pictures, framed as these: made by a preprocessor, or from a folder of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sdscratch.errors import ImageError
from sdscratch.images.hints import make_hint
from sdscratch.images.open import opened
from sdscratch.training.dataset.folder_source import FolderSource, Levels, framed
from sdscratch.training.dataset.plan import View

__all__ = ["GivenHints", "MadeHints"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SKEW = 0.02  # by so much a hint's sides may be in another proportion than its picture's


class MadeHints:
    """A preprocessor's maps of the pictures as they are framed."""

    def __init__(self, source: FolderSource, preprocess: str) -> None:
        self.source, self.preprocess = source, preprocess

    def __call__(self, view: View) -> Levels:
        """[H, W, 3].

        Raises:
            ImageError: the picture is broken.
        """
        return np.asarray(make_hint(Image.fromarray(self.source.levels(view)), self.preprocess))


class GivenHints:
    """Pictures called as those that they are hints of, whatever their suffix, and framed as they are.

    Raises:
        ImageError: one is missing, or has another shape than its picture.
    """

    def __init__(self, source: FolderSource, root: Path) -> None:
        self.paths = []
        for picture in source.folder.pictures:
            stem = root / Path(picture.path).with_suffix("")
            path = next(
                (p for suffix in SUFFIXES if (p := stem.with_name(stem.name + suffix)).is_file()), None
            )
            if path is None:
                raise ImageError(
                    f"{picture.path} has no hint in {root}; lay one there that is called {stem.name}, too, "
                    "or take the picture out"
                )
            with opened(str(path)) as image:
                width, height = image.size
            if abs(width * picture.height / (height * picture.width) - 1.0) > SKEW:
                raise ImageError(
                    f"the hint {path} has {width}x{height} pixels, and its picture "
                    f"{picture.width}x{picture.height}; they must have the same shape"
                )
            self.paths.append(path)

    def __call__(self, view: View) -> Levels:
        """[H, W, 3].

        Raises:
            ImageError: the hint is broken.
        """
        return framed(self.paths[view.picture], view)
