"""Pictures drawn again from what they say of themselves: as lines of a plan, with the files that are here.

What a picture says (`ours`, `theirs`) becomes a line; what the line names is looked for (`finding`); what is
asked for besides comes on top. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from sdscratch.diffusion.spacing import has_spacing
from sdscratch.errors import CheckpointError, UsageError
from sdscratch.images import Record, Records, read_records
from sdscratch.jobs.finding import Library, Wanted
from sdscratch.jobs.options import LINE, line_values
from sdscratch.jobs.ours import told_by_record
from sdscratch.jobs.plan import Job, job_of
from sdscratch.jobs.search import Search, control_files
from sdscratch.jobs.theirs import TOOLS, Told, tagged, told_by
from sdscratch.jobs.wildcards import Expander
from sdscratch.options import ResolvedOptions, changed, random_seed
from sdscratch.settings import kind_of
from sdscratch.show import printable

__all__ = ["Recipe", "Replay", "parse_sets", "prepare", "read_recipe"]

FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Recipe:
    """What a picture says of how it was made.

    Attributes:
        source: the picture.
        tool: which tool says it: a name of `TOOLS`, or sdscratch.
        records: all that is said.
    """

    source: Path
    tool: str
    records: Records

    @property
    def record(self) -> Record | None:
        """Our own record, where that is what it says."""
        return self.records.record

    @property
    def like(self) -> str:
        """The tool that it is drawn like, unless another is asked for."""
        return TOOLS[self.tool][0]["like"] if self.record is None else self.record.options.like

    def files(self) -> list[Wanted]:
        """Every file that the picture names."""
        told = self.told()
        single = [each for each in (told.model, told.vae, told.taesd, told.upscaler) if each is not None]
        loras = [wanted for _, wanted in (*told.loras, *tagged(told))]
        controls = [wanted for each in told.controls for wanted in control_files(each)]
        return [*single, *loras, *told.embeddings, *controls]

    def told(self, like: str | None = None) -> Told:
        """The same as a line, drawn like another tool if that is asked for."""
        if self.record is not None:
            return told_by_record(self.record, like)
        assert self.records.infotext is not None
        return told_by(self.tool, self.records.infotext, like)


def read_recipe(source: Path) -> Recipe:
    """What a picture says.

    Raises:
        ImageError: it is no picture, or says nothing of how it was made.
        CheckpointError: nothing that can be drawn from.
    """
    records = read_records(source)
    if records.tool is None:
        raise CheckpointError(
            f"{printable(source)} does not say how it was made; nothing can be drawn from it"
        )
    if records.record is None and (records.tool not in TOOLS or not _says_enough(records)):
        raise CheckpointError(f"{printable(source)} does not say enough of how it was made to draw it again")
    return Recipe(source, records.tool, records)


def _says_enough(records: Records) -> bool:
    text = records.infotext
    return text is not None and bool(text.prompt or text.parameters)


def parse_sets(texts: Sequence[str]) -> dict[str, Any]:
    """What `--set KEY=VALUE` asks for, by field of a line.

    Raises:
        UsageError: another form, a key that nothing is called, or a value of another type.
    """
    hints = get_type_hints(LINE)
    said: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name:
            raise UsageError(f"--set is {text!r}, but must be KEY=VALUE, like steps=30")
        if get_origin(hint := kind_of(hints.get(name, str))) is tuple:
            said.setdefault(name, []).append(value)
        else:
            said[name] = FLAGS.get(value.lower(), value) if hint is bool else value
    return line_values(said, "--set")


@dataclass(frozen=True)
class Replay:
    """One picture, ready to be drawn again.

    Attributes:
        line: the line of a plan that draws it.
        options: exactly those of the record, where nothing was asked for besides.
        differs: the names of what was asked to be otherwise.
        unmatched: what could not be matched, in words.
        by_name: files that were found by name alone, though the picture tells their hash.
    """

    recipe: Recipe
    line: Mapping[str, Any]
    options: ResolvedOptions | None
    differs: tuple[str, ...]
    unmatched: tuple[str, ...]
    by_name: tuple[str, ...]

    @cached_property
    def job(self) -> Job:
        """The line, checked.

        Raises:
            UsageError: it asks for what there is not.
        """
        place = str(self.recipe.source)
        job = job_of(1, place, self.plan_line, {}, random_seed(), Expander())
        return replace(job, options=changed(job.options, prompt=self.line["prompt"]))

    @property
    def plan_line(self) -> dict[str, Any]:
        """The line as plans take it: none goes without a prompt, and a blank is read as none."""
        return {**self.line, "prompt": self.line["prompt"] or " "}


def prepare(
    recipe: Recipe, library: Library, changes: Mapping[str, Any] | None = None, like: str | None = None
) -> Replay:
    """Find all that a picture names, and put on top what was asked for besides.

    Args:
        changes: fields of a line that are to be otherwise.
        like: a tool to draw like, instead of the one that made it.

    Raises:
        CheckpointError: a model or an add-on is not here.
        ImageError: the picture that it was drawn from is not here.
        UsageError: what is asked for does not go together.
    """
    changes = dict(changes or {})
    told = recipe.told(like)
    search = Search(recipe.source, library, told)
    line = search.line(changes)
    if "scheduler" in line and not has_spacing(line["like"], line["scheduler"]):
        told.unmatched.append(f"Schedule type: {line.pop('scheduler')}, which {line['like']} has not")
    line["wildcards"] = False  # they had their turn
    before = dict(line)
    sides = {"width", "height", "size"}
    if "size" in changes:
        line = {key: value for key, value in line.items() if key not in sides}
    line |= changes
    differs = [name for name in changes if before.get(name) != changes[name]]
    if like not in (None, recipe.like):
        differs.append("like")
    options = None
    if told.exact is not None and not differs:
        kept = ["prompt", "negative_prompt"]
        if told.exact.hires is not None and told.upscaler is not None:
            kept.append("hires_upscaler")  # where it is here
        options = replace(told.exact, **{name: line[name] for name in kept})
    return Replay(recipe, line, options, tuple(differs), tuple(told.unmatched), tuple(search.by_name))
