"""What is done for one picture on every way through jobs: its init picture, its file, or its line kept."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from sdscratch.files import write_error
from sdscratch.generation.requests import Init
from sdscratch.images import Record, is_saved, read_records, save_picture, write_sidecar
from sdscratch.jobs.journal import FAILED, Shard, append
from sdscratch.jobs.options import line_values
from sdscratch.jobs.tasks import Task, given_key, given_of
from sdscratch.options.masks import MaskOptions

__all__ = ["Inits", "Saving", "keep_failed"]

INITS_KEPT = 8  # pictures to start from
EXPANDING = ("wildcard_seed", "wildcard_folder", "combinations")


class Inits:
    """Pictures to start from, each read and fitted once; the newest are kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Init] = OrderedDict()

    def __call__(self, task: Task) -> Init | None:
        """What a picture starts from, if from any.

        Raises:
            ImageError: it is missing, or damaged.
        """
        asked, options = task.job.options, task.options
        if task.job.source.init_img is None:
            return None
        own_size = asked.width is None and asked.height is None
        given = given_key(task.job)
        masked = [getattr(options, name) for name in MaskOptions.__dataclass_fields__]
        key = (*given, own_size, options.width, options.height, *masked)
        if key not in self._kept:
            self._kept[key] = given_of(given).init(asked, options)
        self._kept.move_to_end(key)
        while len(self._kept) > INITS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


@dataclass(frozen=True)
class Saving:
    """How pictures are kept.

    Attributes:
        strip: without their records.
        sidecar: with the record in a file beside each.
    """

    strip: bool = False
    sidecar: bool = False

    def __call__(self, image: Image, record: Record, path: Path) -> Path:
        """Write a picture; the very one may be there from a run that ended before it noted it.

        Raises:
            UsageError: something else has its name.
            SdscratchError: it cannot be written.
        """
        own = None if self.strip else record
        if not (path.exists() and (is_saved(image, path, own) or read_records(path).record == record)):
            save_picture(image, path, own)
        if self.sidecar:
            write_sidecar(path, record)
        return path


def keep_failed(folder: Path, shard: Shard, task: Task) -> None:
    """Keep a line that failed, in a form that can be run again.

    Raises:
        SdscratchError: it cannot be written.
    """
    path = folder / shard.named(FAILED.removesuffix(".jsonl"))
    said = line_values(task.job.said, task.job.place) | {"seed": task.options.seed, "batch_count": 1}
    if task.template is not None:  # as it was expanded: chance has had its turn
        options = task.options
        said |= {"prompt": options.prompt, "negative_prompt": options.negative_prompt, "wildcards": False}
        said = {name: value for name, value in said.items() if name not in EXPANDING}
    try:
        with path.open("ab", buffering=0) as file:
            append(file, path, said)
    except OSError as error:
        raise write_error(path, error) from error
