"""A plan's file as jobs: plain lines, JSONL, CSV or TOML, each line with the defaults of the command line.

A plan is gone through line by line, as often as it takes, and never held: a million lines cost no memory.
No torch.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sdscratch.errors import ImageError, UsageError
from sdscratch.images import TemplateRecord
from sdscratch.jobs.axes import Axis, expand, tables
from sdscratch.jobs.lines import read_line
from sdscratch.jobs.options import LineOptions, line_values, sized
from sdscratch.jobs.source import NumberedLine, read_lines
from sdscratch.jobs.wildcards import Expanded, Expander
from sdscratch.options import MAX_SEED, GenerateOptions, changed
from sdscratch.options.masks import useless_without_mask

__all__ = ["Job", "Plan", "job_of"]

LINE_FIELDS = frozenset(LineOptions.__dataclass_fields__)
SEEDS = 2**32  # of seeds that nobody asked for


@dataclass(frozen=True)
class Job:
    """One line of a plan: `source.batch_count` pictures.

    Attributes:
        number: counted from 1 over all lines that ask for something.
        place: how an error names it.
        said: what the line itself says, by field, for a file of failed lines.
        options: what is asked of its pictures, of the first one where they differ; the seed is settled.
        source: what they are drawn with, and from.
        expanded: tells the prompts of each picture, where they have wildcards.
    """

    number: int
    place: str
    said: Mapping[str, Any]
    options: GenerateOptions
    source: LineOptions
    expanded: Callable[[], Iterator[Expanded]] | None = None

    def pictures(self) -> Iterator[tuple[GenerateOptions, TemplateRecord | None]]:
        """What is asked of each picture, and what its prompts were before their wildcards were expanded.

        Raises:
            UsageError: a template makes no sense, or the prompt that came of it; names the line.
        """
        if self.expanded is None:
            for index in range(self.source.batch_count):
                yield changed(self.options, seed=index + (self.options.seed or 0)), None
            return
        try:
            for each in self.expanded():
                yield changed(self.options, **each.asked), each.template
        except UsageError as error:
            raise UsageError(f"{self.place}: {error}") from None


@dataclass(frozen=True)
class Plan:
    """A plan's file.

    Args:
        path: its suffix says what it is: .jsonl, .csv, .toml, else plain lines.
        defaults: fields of every line that does not say otherwise.
        seed: what seeds come from where nobody asks for one.
    """

    path: Path
    defaults: Mapping[str, Any]
    seed: int
    expander: Expander = field(default_factory=Expander)

    def __iter__(self) -> Iterator[Job]:
        """Every job, each checked by itself.

        Raises:
            UsageError: a line asks for what there is not; names the line.
            ImageError: the file is missing, unreadable, or no such file.
        """
        for number, (place, said) in enumerate(self._lines(), start=1):
            yield job_of(number, place, said, self.defaults, self.seed, self.expander)

    @property
    def is_toml(self) -> bool:
        """Whether it has axes."""
        return self.path.suffix.lower() == ".toml"

    def tables(self) -> Iterator[list[Axis]]:
        """The axes of a TOML plan, by product.

        Raises:
            UsageError: as iterating.
        """
        return tables(self._toml(), str(self.path))

    def _lines(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        match self.path.suffix.lower():
            case ".jsonl" | ".ndjson":
                return self._json_lines()
            case ".csv":
                return self._rows()
            case ".toml":
                return ((str(self.path), line) for line in expand(self._toml(), str(self.path)))
            case _:
                return self._plain_lines()

    def _place(self, line: NumberedLine) -> str:
        return f"{self.path}, line {line.number}"

    def _plain_lines(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for line in read_lines(self.path):
            said = read_line(line.text, self._place(line))
            if said is not None:
                yield self._place(line), said

    def _json_lines(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for line in read_lines(self.path):
            if line.text.strip():
                yield self._place(line), json_line(line.text, self._place(line))

    def _rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        table = csv.DictReader((line.text + "\n" for line in read_lines(self.path)), strict=True)
        try:
            for row in table:
                place = f"{self.path}, line {table.line_num}"
                if None in row:
                    raise UsageError(f"{place} has more columns than the table's head")
                if any(row.values()):
                    yield place, row
        except csv.Error as error:
            raise ImageError(f"{self.path}, line {table.line_num}: broken CSV ({error})") from None

    def _toml(self) -> dict[str, Any]:
        text = "\n".join(line.text for line in read_lines(self.path))
        try:
            return tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ImageError(f"{self.path} is no TOML: {error}") from None


def json_line(text: str, place: str) -> Mapping[str, Any]:
    """The object in a line of JSON.

    Raises:
        ImageError: anything else.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{place} is no JSON: {error}") from None
    if not isinstance(record, dict):
        raise ImageError(f'{place} is no object, like {{"prompt": "a dog"}}')
    return record


def job_of(
    number: int,
    place: str,
    said: Mapping[str, Any],
    defaults: Mapping[str, Any],
    seed: int,
    expander: Expander,
) -> Job:
    """A line as a job.

    Raises:
        UsageError: it asks for what there is not; names the line.
    """
    own = line_values(said, place)
    sides = {"width", "height", "size"}
    # a line's size takes the place of the defaults' sides, and the other way round
    shared = {key: value for key, value in defaults.items() if not (key in sides and own.keys() & sides)}
    try:
        values = sized(shared | own)
        if not values.get("prompt"):
            raise UsageError("it has no prompt")
        values.setdefault("seed", drawn_seed(seed, number))
        source = LineOptions(**{key: values.pop(key) for key in LINE_FIELDS & values.keys()})
        if values["seed"] + source.batch_count - 1 > MAX_SEED:
            raise UsageError(
                f"the seed is {values['seed']}, too high for {source.batch_count} pictures; "
                f"the last is {MAX_SEED}"
            )
        if source.init_img is None and "strength" in own:
            raise UsageError("it has a strength, but no init_img to start from")
        if source.init_img is None and "init_upscaler" in own:
            raise UsageError("it has an init_upscaler, but no init_img to enlarge")
        if source.init_img is None and ("mask" in own or "extend" in own):
            raise UsageError("it has a mask or borders, but no init_img to start from")
        if source.mask is None and source.extend is None and (name := useless_without_mask(own)):
            raise UsageError(f"it has {name}, but no mask")
        prompts = values["prompt"], values.get("negative_prompt", "")
        expanded = None
        if expander.applies(source, *prompts):
            expanded = partial(expander.pictures, source, *prompts, values["seed"])
            first = next(expanded(), None)
            if first is None:
                raise UsageError("its wildcards have no combination at all")
            values |= {"prompt": first.prompt, "negative_prompt": first.negative_prompt}
        return Job(number, place, said, GenerateOptions(**values), source, expanded)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def drawn_seed(seed: int, number: int) -> int:
    """The seed of a job that asks for none: another for each, the same at every reading."""
    digest = blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEEDS
