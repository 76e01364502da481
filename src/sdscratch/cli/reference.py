"""`python -m sdscratch.cli.reference [FOLDER]`: what the docs say of the code, written from the code.

Writes docs/options.md, whose tables are made of the options that the commands have; fills the tables of other
pages (`reference_tables`), and brings the counts of lines in README.md up to date. FOLDER is a checkout, by
default the current folder. This module imports no torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import typer

from sdscratch.cli.app import Commands
from sdscratch.cli.arguments import Arguments
from sdscratch.cli.help import load_command, names
from sdscratch.cli.reference_tables import TABLES
from sdscratch.cli.train import KINDS
from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write
from sdscratch.options import GenerateOptions
from sdscratch.settings import Setting, choices_of, settings_of

__all__ = ["commands", "main", "options_page", "with_counts", "with_tables"]

OPTIONS, README = Path("docs/options.md"), Path("README.md")
WITHOUT_PANEL = "Options"

# Commands that share most of their options, described together; every other command has a section of its own.
DRAWING = ("txt2img", "img2img", "run")
TRAINING = tuple(f"train {name}" for name in KINDS)
TOGETHER = (DRAWING, TRAINING)

# Where a command's ranges and choices are told, beside what Typer knows.
SETTINGS: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys((*DRAWING, "explain"), (GenerateOptions, Arguments)),
    **{f"train {name}": (kind,) for name, kind in KINDS.items()},
}

BEGINNING = """\
# Options of every command

<!-- Made by `make docs` from the commands themselves; what is changed here by hand is lost. -->

`sdscratch COMMAND --help` says the same, with examples. A dash as the default means off, or nothing. A value
follows its option after a space or an equals sign: `--steps 20` or `--steps=20`. Where an option is typed
twice, the last one counts, unless it is repeatable. Exit codes are in [records and JSON](records.md); how
training options stand in a file is in [training](training.md).
"""

COUNTED = re.compile(r"(\]\((src/[^)#]+)\) \| )[\d,]+(?= \|)")  # a link to a file of the package, then a cell


class Row(NamedTuple):
    """One argument or option."""

    panel: str
    name: str
    default: str
    meaning: str


def commands() -> dict[str, Any]:
    """Every command by the words that it is typed as: `txt2img`, `train lora`; groups are left out."""
    found: dict[str, Any] = {}
    for name, (place, _) in Commands.places.items():
        command = load_command(name, place)
        below = getattr(command, "commands", None)
        found |= {name: command} if below is None else {f"{name} {word}": below[word] for word in below}
    return found


def options_page() -> str:
    """The whole of docs/options.md."""
    rows = {name: list(rows_of(name, command)) for name, command in commands().items()}
    return "\n".join([BEGINNING, *sections(rows)])


def sections(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """A section for each command, or for those that share their options, in the order of the help."""
    done: set[str] = set()
    for name in rows:
        if name in done:
            continue
        group = next((each for each in TOGETHER if name in each), (name,))
        done |= set(group)
        yield f"## {title_of(group)}\n"
        common = [row for row in rows[name] if all(row in rows[each] for each in group)]
        yield from tables(common, 3)
        for each in group:
            if own := [row for row in rows[each] if row not in common]:
                yield f"### Besides, in {each}\n"
                yield from tables(own, 4)


def title_of(group: Sequence[str]) -> str:
    """The names of a group, what they begin with said once: `train autoencoder, diffusion and lora`."""
    first, *others = group
    shared = first[: first.rfind(" ") + 1]
    *middle, last = ["", *(name.removeprefix(shared) for name in others)]
    return f"{', '.join([first, *middle[1:]])} and {last}" if last else first


def tables(rows: Sequence[Row], level: int) -> Iterator[str]:
    """A table for each panel, under its name."""
    for panel in dict.fromkeys(row.panel for row in rows):
        if panel != WITHOUT_PANEL:
            yield f"{'#' * level} {panel}\n"
        yield "| option | default | meaning |"
        yield "|---|---|---|"
        for row in rows:
            if row.panel == panel:
                yield f"| `{cell(row.name)}` | {cell(row.default)} | {marked(cell(row.meaning))} |"
        yield ""


def rows_of(name: str, command: Any) -> Iterator[Row]:
    """A command's arguments and options, but for --help."""
    told = {
        field: (about, get_type_hints(kind)[field])
        for kind in SETTINGS.get(name, ())
        for field, about in settings_of(kind).items()
    }
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        about, hint = told.get(parameter.name, (None, None))
        choices = choices_of(hint) if hint is not None else ()
        yield Row(
            panel=getattr(parameter, "rich_help_panel", None) or WITHOUT_PANEL,
            name=names(parameter),
            default=default_of(parameter),
            meaning=" ".join([parameter.help or "", *limits(parameter, about, choices)]).strip(),
        )


def default_of(parameter: Any) -> str:
    """What an option is where it is not typed, in words, and the variable that can say so."""
    shown, value = getattr(parameter, "show_default", None), parameter.default
    if parameter.required:
        text = "required"
    elif isinstance(shown, str):
        text = shown
    elif value is None or value is False or value in ("", (), []):
        text = "–"
    else:
        text = "on" if value is True else str(value)
    variable = getattr(parameter, "envvar", None)
    return f"{text}, or `${variable}`" if variable else text


def limits(parameter: Any, about: Setting | None, choices: Sequence[str]) -> Iterator[str]:
    """The choices that the help does not name, and the range, as sentences."""
    said = f"{parameter.help} {names(parameter)}"
    choices = choices or (about.choices if about is not None else ()) or choices_of_type(parameter)
    if set(choices) - {word.rstrip(".") for word in re.findall(r"[\w+.-]+", said)}:
        yield f"One of {', '.join(choices)}."
    low, high = (about.low, about.high) if about is not None else typed_range(parameter)
    if low is not None and high is not None:
        if (ends := f"{number(low)} to {number(high)}") not in said:
            yield f"From {ends}."
    elif low is not None and f"at least {number(low)}" not in said:
        yield f"At least {number(low)}."


def choices_of_type(parameter: Any) -> tuple[str, ...]:
    """What Typer lets an option be."""
    descriptor = parameter.type_descriptor
    return tuple(map(str, descriptor.choices)) if descriptor.is_choice else ()


def typed_range(parameter: Any) -> tuple[float | None, float | None]:
    """Between what Typer wants an option to be."""
    told = parameter.type_descriptor.parameter_info
    return getattr(told, "min", None), getattr(told, "max", None)


def number(value: float) -> str:
    """A bound as people read it: 2⁶³−1, not nineteen digits."""
    return "2⁶³−1" if value == 2**63 - 1 else f"{value:g}" if isinstance(value, float) else f"{value}"


def cell(text: str) -> str:
    """Text that cannot break a table."""
    return " ".join(text.split()).replace("|", "\\|")


def marked(text: str) -> str:
    """Text in Markdown: tags and options as code, so that they are no HTML."""
    return re.sub(r"<[^>]+>|(?<![\w`-])--[a-z][a-z-]*", lambda found: f"`{found[0]}`", text)


def with_counts(text: str, root: Path) -> str:
    """The text with the count of lines after each link to a file of the package in a table, as it is now.

    Raises:
        SdscratchError: there is no such file.
    """

    def counted(found: re.Match[str]) -> str:
        path = root / found[2]
        try:
            return f"{found[1]}{len(path.read_text(encoding='utf-8').splitlines())}"
        except OSError as error:
            raise SdscratchError(f"{path} cannot be read: {error.strerror}") from None

    return COUNTED.sub(counted, text)


def with_tables(text: str) -> str:
    """The text with every table that stands between `<!-- NAME: … -->` and `<!-- /NAME -->` made anew."""
    for name, table in TABLES.items():
        between = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
        made = "".join(f"{line}\n" for line in table())
        text = between.sub(lambda found, made=made: f"{found[1]}\n{made}\n{found[2]}", text)  # type: ignore[misc]
    return text


def main(root: Path) -> None:
    """Write the pages of a checkout anew, where they are no longer what the code says.

    Raises:
        SdscratchError: one cannot be read or written.
    """
    pages = {root / OPTIONS: options_page()}
    for path in (root / README, *(root / OPTIONS).parent.glob("*.md")):
        if path not in pages:
            pages[path] = with_counts(with_tables(path.read_text(encoding="utf-8")), root)
    for path, text in pages.items():
        with atomic_write(path, overwrite=True) as file:
            file.write(text.encode())


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
