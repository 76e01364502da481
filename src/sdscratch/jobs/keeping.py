"""What is done for one picture on every way through jobs: its init picture, its file, or its line kept."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from PIL.Image import Image

from sdscratch.files import write_error
from sdscratch.generation.requests import Init
from sdscratch.images import Record, fit_picture, picture_hash, read_picture, read_records, save_picture
from sdscratch.jobs.journal import FAILED, Shard, append
from sdscratch.jobs.options import line_values
from sdscratch.jobs.tasks import Task
from sdscratch.options import fit_of_init

__all__ = ["Inits", "keep_failed", "save"]

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
        source, options = task.job.source, task.options
        if source.init_img is None:
            return None
        fit = fit_of_init(task.job.options, source.fit)
        key = (source.init_img, source.background, fit, options.width, options.height)
        if key not in self._kept:
            picture = read_picture(source.init_img, source.background)
            fitted = fit_picture(picture, options.width, options.height, fit, source.background)
            self._kept[key] = Init(fitted, fit, picture_hash(picture), source.background)
        self._kept.move_to_end(key)
        while len(self._kept) > INITS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


def save(image: Image, record: Record, path: Path) -> Path:
    """Write a picture; the very one may be there from a run that ended before it noted it.

    Raises:
        UsageError: something else has its name.
        SdscratchError: it cannot be written.
    """
    if path.exists() and read_records(path).record == record:
        return path
    save_picture(image, path, record)
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
