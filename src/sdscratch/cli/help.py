"""What `--help` shows, and commands that are imported only when they are run.

Typer would draw its help with Rich, whose import and tables take twice as long as all that is left; so
Typer's plain formatter writes it here, in the panels of `arguments`, in colour where stdout is a terminal.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from sdscratch.errors import UsageError

__all__ = ["CONTEXT", "Command", "Group", "LazyGroup", "load_command"]

CONTEXT = {"help_option_names": ["-h", "--help"]}
ARGUMENTS, OPTIONS, COMMANDS = "Arguments", "Options", "Commands"
WORDS = {"str": "TEXT", "int": "N", "float": "X"}  # what stands for a value of that type

Rows = list[tuple[str, str]]


class Command(TyperCommand):
    """A command whose help has a section for each panel of its options, and examples that can be pasted."""

    alone: ClassVar[Mapping[str, int]] = {}
    """Options that may stand without a number → the number that they mean then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what was typed; a number that an option may lack is put in."""
        return super().parse_args(ctx, with_numbers(args, self.alone))

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does; paragraphs that are indented stand as they are."""
        verbatim = "\b\n"
        paragraphs = inspect.cleandoc(self.help or "").split("\n\n")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n\n".join(f"{verbatim * p.startswith('  ')}{p}" for p in paragraphs))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options."""
        write_sections(formatter, sections(self.get_params(ctx), ctx))


def with_numbers(words: Sequence[str], alone: Mapping[str, int]) -> list[str]:
    """Words, with a number behind each option that may lack one, and does."""
    ends = words.index("--") if "--" in words else len(words)
    full: list[str] = []
    for index, word in enumerate(words):
        full.append(word)
        if word in alone and index < ends and not "".join(words[index + 1 : index + 2]).isdecimal():
            full.append(str(alone[word]))
    return full


class Group(TyperGroup):
    """Commands by name; without one, the help is shown, and it is wrong usage."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands before the command's name."""
        if not args and not ctx.resilient_parsing:  # which completion is
            typer.echo(ctx.get_help())
            raise typer.Exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def lines(self, ctx: Any) -> Rows:
        """What each command does, in a line."""
        return [(name, self.commands[name].get_short_help_str(80)) for name in self.list_commands(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options and the commands."""
        write_sections(formatter, {**sections(self.get_params(ctx), ctx), COMMANDS: self.lines(ctx)})


class LazyGroup(Group):
    """Commands by name; looking one up imports its module, listing them none."""

    places: ClassVar[Mapping[str, tuple[str, str]]]
    """A command's name → "module:function", and what it does: the first line of its help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        names: Any = dict.fromkeys(self.places)
        self.commands = names  # what Typer lists, and guesses at typing errors from

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, imported now; None if there is none of that name."""
        return load_command(cmd_name, self.places[cmd_name][0]) if cmd_name in self.places else None

    def lines(self, ctx: Any) -> Rows:
        """What each command does, in a line."""
        return [(name, line) for name, (_, line) in self.places.items()]


def load_command(name: str, place: str) -> Any:
    """The command at "module:attribute", a function or a whole `typer.Typer`."""
    module, attribute = place.split(":")
    target = getattr(import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False, rich_markup_mode=None)
        kind = type("Command", (Command,), {"alone": getattr(function, "alone", {})})
        target.command(name, cls=kind, context_settings=CONTEXT)(function)
    return typer.main.get_command(target)


def sections(parameters: Iterable[Any], ctx: Any) -> dict[str, Rows]:
    """The rows of each panel, arguments first and what is in no panel last."""
    found: dict[str, Rows] = {ARGUMENTS: []}
    rest: Rows = []
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:  # hidden
            continue
        panel = getattr(parameter, "rich_help_panel", None)
        # Typer puts parentheses around a default in words
        row = (names(parameter), re.sub(r"default: \((.*)\)\]$", r"default: \1]", record[1]))
        if parameter.param_type_name == "argument":
            found[ARGUMENTS].append(row)
        elif panel is None:
            rest.append(row)
        else:
            found.setdefault(panel, []).append(row)
    return {name: rows for name, rows in {**found, OPTIONS: rest}.items() if rows}


def names(parameter: Any) -> str:
    """How a parameter is typed: PROMPT, or -s, --seed N."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    spelled = ", ".join(
        sorted((*parameter.opts, *parameter.secondary_opts), key=lambda name: name.startswith("--"))
    )
    return spelled if parameter.is_flag else f"{spelled} {value_word(parameter)}"


def value_word(option: Any) -> str:
    """What stands for an option's value in the help."""
    descriptor = option.type_descriptor
    if option.metavar is not None:
        return str(option.metavar)
    if descriptor.is_choice:
        return "|".join(map(str, descriptor.choices))
    return WORDS.get(option.bare_type(), "VALUE")


def write_sections(formatter: Any, found: Mapping[str, Rows]) -> None:
    """Write sections of two columns, names in colour (which Typer takes out where there is no terminal)."""
    plain = bool(os.environ.get("NO_COLOR"))
    for title, rows in found.items():
        with formatter.section(title if plain else typer.style(title, bold=True)):
            formatter.write_dl(
                [(first if plain else typer.style(first, fg="cyan"), second) for first, second in rows],
                col_max=24,
            )
