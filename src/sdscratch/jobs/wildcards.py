"""Prompts with wildcards as pictures' prompts: one by chance for each picture, or every combination.

A picture's wildcards have a seed of their own, `wildcard_seed` + i for picture i; where none is given, it is
the picture's seed. The negative prompt's is another, so that equal choices in both are not made alike.
No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdscratch.errors import UsageError
from sdscratch.images import TemplateRecord
from sdscratch.jobs.options import LineOptions
from sdscratch.text.wildcards import Lists, combinations, expand, is_template
from sdscratch.text.wildcards.folders import usual_folders

__all__ = ["MOST_COMBINATIONS", "Expanded", "Expander"]

MOST_COMBINATIONS = 100_000  # of one line
NEGATIVE = 2**64  # what the negative prompt's seed is further on


@dataclass(frozen=True)
class Expanded:
    """One picture's prompts."""

    prompt: str
    negative_prompt: str
    seed: int  # of the picture
    template: TemplateRecord

    @property
    def asked(self) -> dict[str, Any]:
        """The same as options."""
        return {"prompt": self.prompt, "negative_prompt": self.negative_prompt, "seed": self.seed}


@dataclass(frozen=True)
class Expander:
    """Expands templates; lists are read once."""

    _lists: dict[str | None, Lists] = field(default_factory=dict)

    def applies(self, source: LineOptions, prompt: str, negative_prompt: str) -> bool:
        """Whether there is anything to expand."""
        return source.wildcards is not False and (is_template(prompt) or is_template(negative_prompt))

    def pictures(
        self, source: LineOptions, prompt: str, negative_prompt: str, seed: int
    ) -> Iterator[Expanded]:
        """The prompts of every picture of a line, in order.

        Args:
            seed: the first picture's; every combination begins with it.

        Raises:
            UsageError: a template makes no sense, names a list that there is not, or stands for too many.
        """
        lists = self.lists(source.wildcard_folder)
        if source.combinations:
            first = seed if source.wildcard_seed is None else source.wildcard_seed
            record = TemplateRecord(prompt, negative_prompt, first)
            for number, texts in enumerate(_combinations(record, lists)):
                if number == MOST_COMBINATIONS:
                    raise UsageError(
                        f"its wildcards have more than {MOST_COMBINATIONS:,} combinations; leave some out"
                    )
                for index in range(source.batch_count):
                    yield Expanded(*texts, seed + index, record)
            return
        for index in range(source.batch_count):
            own = (seed if source.wildcard_seed is None else source.wildcard_seed) + index
            yield Expanded(
                _one(prompt, own, lists, index),
                _one(negative_prompt, own + NEGATIVE, lists, index),
                seed + index,
                TemplateRecord(prompt, negative_prompt, own),
            )

    def lists(self, folder: str | None) -> Lists:
        """The lists that `__name__` means.

        Raises:
            UsageError: the folder is none.
        """
        if folder not in self._lists:
            if folder is not None and not Path(folder).is_dir():
                raise UsageError(f"--wildcard-folder {folder} is no folder")
            given = () if folder is None else (Path(folder),)
            self._lists[folder] = Lists((*given, *usual_folders()))
        return self._lists[folder]


def _one(text: str, seed: int, lists: Lists, turn: int) -> str:
    return expand(text, seed, lists, turn) if is_template(text) else text


def _combinations(record: TemplateRecord, lists: Lists) -> Iterator[tuple[str, str]]:
    """Every pair of prompts, the negative one changing fastest."""
    if not is_template(record.negative_prompt):
        for text in combinations(record.prompt, record.seed, lists):
            yield text, record.negative_prompt
        return
    negatives = []
    for text in combinations(record.negative_prompt, record.seed + NEGATIVE, lists):
        negatives.append(text)
        if len(negatives) > MOST_COMBINATIONS:
            break
    prompts = (
        combinations(record.prompt, record.seed, lists) if is_template(record.prompt) else [record.prompt]
    )
    for prompt in prompts:
        for negative in negatives:
            yield prompt, negative
