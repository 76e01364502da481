"""What `upscale` says of a redrawing while it lasts, and what it keeps of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdscratch.cli.progress import View
from sdscratch.diffusion.catalogue import SAMPLERS

if TYPE_CHECKING:
    from sdscratch.generation.outputs import OutputPlan
    from sdscratch.generation.pipeline import Pipeline

__all__ = ["duration", "kept"]


def duration(seconds: float) -> str:
    """About so long, in words."""
    for length, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {name}"
    return f"about {max(seconds, 1.0):.0f} s"


@contextmanager
def kept(pipeline: Pipeline, request: Any, plan: OutputPlan, view: View) -> Iterator[None]:
    """Windows are told of one by one, and kept beside the result until it is there."""
    from sdscratch.generation.journal import WindowJournal
    from sdscratch.generation.windows import windows_of
    from sdscratch.images import picture_hash

    options, total = request.options, None
    path = pipeline.path(options, from_init=True)
    downscale = pipeline.files.config.autoencoder.downscale
    count = len(
        windows_of(options.height // downscale, options.width // downscale, options.window // downscale)
    )
    to_zero = path.sigmas[-1] == 0.0
    evaluations = SAMPLERS[options.sampler].evaluations(len(path.timesteps), to_zero=to_zero)
    if evaluations is not None:
        total = evaluations * count
        times = f" × {evaluations} estimates" if evaluations > 1 else ""
        view.note(f"{count} windows of {options.window} pixels{times}: {total} in all")
    name = plan.path(0)
    if name is None:
        yield
        return
    key = json.dumps(
        [
            asdict(options),
            pipeline.model_hash(),
            picture_hash(request.init.image),
            pipeline.placement.dtype_name,
            *(control.record().to_record() for control in request.controls),
        ]
    )
    timing = Timing(total, view)
    with WindowJournal(Path(f"{name}.partial"), key, timing.told) as journal:
        timing.journal = journal
        pipeline.sampling.keep = journal
        try:
            yield
        finally:
            pipeline.sampling.keep = None
        journal.remove()


class Timing:
    """Says how long all windows will take, as soon as two are done."""

    def __init__(self, total: int | None, view: View) -> None:
        self.total, self.view = total, view
        self.journal: Any = None
        self.last: float | None = None
        self.said = False

    def told(self, done: int) -> None:
        """So many windows are done."""
        now, computed = time.perf_counter(), done - self.journal.found
        if computed and self.last is not None and self.total is not None and not self.said:
            if self.journal.found:
                self.view.note(f"{self.journal.found} windows were done before")
            left = self.total - done
            if left > 1:
                self.view.note(f"{duration((now - self.last) * left)} to go")
            self.said = True
        self.last = now
