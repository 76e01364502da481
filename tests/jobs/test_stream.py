"""Lines of a pipe: each is answered before the next is read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from sdscratch.errors import DeviceError
from sdscratch.generation.opening import Opened
from sdscratch.generation.requests import Event, Failed, Picture, Request
from sdscratch.images import Record
from sdscratch.jobs.names import Template
from sdscratch.jobs.run import Done, Lost
from sdscratch.jobs.stream import Stream
from sdscratch.jobs.tasks import Models


class Asking(io.BytesIO):
    """Notes how many answers there were each time that a line is asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.answers = 0
        self.asked: list[int] = []

    def readline(self, size: int | None = -1) -> bytes:
        self.asked.append(self.answers)
        return super().readline(size)


def draw(opened: Opened, requests: Iterable[Request]) -> Iterator[Event]:
    """A colour for a seed, or a failure."""
    for index, request in enumerate(requests):
        if request.options.prompt == "bad":
            yield Failed(index, (request,), DeviceError("out of memory"))
            continue
        options = request.options
        image = Image.new("RGB", (8, 8), (options.seed % 256, 0, 0))
        record = Record("txt2img", options, opened.files.name, "0123456789", "float32", "cpu")
        yield Picture(index, request, image, lambda record=record: record, {})  # type: ignore[misc]


def test_each_line_is_answered_before_the_next_is_read(tmp_path: Path) -> None:
    asking = Asking(b'a\n# nothing\nbad\nb\n{"prompt": "c", "batch_count": 2}\nd')
    stream = Stream({}, 3, tmp_path, Template("{n:03}.png"), Models(), draw)
    outcomes = []
    for event in stream.answers(asking):
        outcomes.append(event)
        asking.answers += 1
    assert asking.asked == [0, 1, 1, 2, 3, 5, 6]
    assert [type(each) for each in outcomes] == [Done, Lost, Done, Done, Done, Done]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"{n:03}.png" for n in range(1, 6)]
    assert '"prompt": "bad"' in (tmp_path / "failed.jsonl").read_text()
