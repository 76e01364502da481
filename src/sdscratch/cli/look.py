"""What is looked at: a film of the denoising, the picture in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdscratch.errors import UsageError
from sdscratch.files import make_folder, refuse_existing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FILMS", "Film", "check_film_options", "film_of", "show_picture"]

ABOUT_FILMS = {"frames": 0, "film_loop": False, "film_to": None, "film_to_seed": None}
FILMS = ("film", *ABOUT_FILMS)


class FilmOptions(Protocol):
    """What `arguments.Arguments` has of films."""

    @property
    def film(self) -> str | None: ...
    @property
    def frames(self) -> int: ...
    @property
    def film_loop(self) -> bool: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def batch_count(self) -> int: ...
    @property
    def overwrite(self) -> bool: ...


def check_film_options(arguments: FilmOptions) -> None:
    """
    Raises:
        UsageError: an option of films without --film, a suffix of none, or pictures drawn at once.
    """
    if arguments.film is None:
        for name, default in ABOUT_FILMS.items():
            if getattr(arguments, name) != default:
                raise UsageError(f"--{name.replace('_', '-')} is about --film, so it goes with it alone")
        return
    from sdscratch.images.film import check_film

    check_film(Path(arguments.film))
    if arguments.batch_size > 1:
        raise UsageError("--film shows one picture at a time, so it goes with a --batch-size of 1")
    if not arguments.overwrite:
        for path in film_names(arguments.film, arguments.batch_count):
            refuse_existing(path)


def film_names(film: str, count: int) -> list[Path]:
    """Where the film of each picture goes: of several with `-1`, `-2`, …"""
    path = Path(film)
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]


@dataclass
class Film:
    """The denoising of one picture after another, each a film of its own."""

    names: list[Path]
    most: int  # frames; 0 is all
    back: bool
    overwrite: bool
    frames: list[Image] = field(default_factory=list)
    done: int = 0

    def add(self, picture: Image) -> None:
        """The picture as far as it is."""
        self.frames.append(picture)

    def end(self, picture: Image) -> None:
        """The picture is there: its film is written.

        Raises:
            SdscratchError: it cannot be written.
        """
        from sdscratch.images.film import chosen, save_film, there_and_back

        frames = [*self.frames, picture]
        frames = [frames[index] for index in chosen(len(frames), self.most or len(frames))]
        frames = there_and_back(frames) if self.back else frames
        save_film(frames, self.names[self.done], hold=not self.back, overwrite=self.overwrite)
        self.frames, self.done = [], self.done + 1


def film_of(arguments: FilmOptions, count: int) -> Film | None:
    """What makes the films that are asked for, one for each of `count` pictures."""
    if arguments.film is None:
        return None
    names = film_names(arguments.film, count)
    make_folder(names[0].parent)
    return Film(names, arguments.frames, arguments.film_loop, arguments.overwrite)


def show_picture(picture: Image) -> None:
    """Show a picture where messages go, if that is a terminal."""
    from sdscratch.images.terminal import shown, way_of

    if sys.stderr.isatty():
        sys.stderr.write(shown(picture, way_of(os.environ), shutil.get_terminal_size().columns))
        sys.stderr.flush()
