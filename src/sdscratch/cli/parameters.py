"""From a dataclass of settings to the command line: an option for every field, as Typer reads a signature.

What is not typed is None, so that a file's value or a default can count instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field, fields
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from sdscratch.settings import Setting, choices_of, kind_of, option_names, shown_default

__all__ = ["option_of", "parameters_of", "typed_values", "with_parameters"]


def option_of(each: Field[Any], hint: Any) -> Any:
    """What Typer makes an option of: the type, or None, with what is said of the field."""
    about: Setting = each.metadata["setting"]
    kind = kind_of(hint)
    return Annotated[
        (list[str] if get_origin(kind) is tuple else kind) | None,
        typer.Option(
            *option_names(each, hint),
            help=about.help,
            metavar=about.metavar or ("NAME" if choices_of(hint) else None),
            rich_help_panel=about.panel,
            show_default=shown_default(each) or False,
            envvar=about.envvar,
        ),
    ]


def parameters_of(kind: type[Any], without: Collection[str] = ()) -> list[inspect.Parameter]:
    """A keyword parameter for every field that is a setting, but for those of the names `without`."""
    hints = get_type_hints(kind)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=option_of(each, hints[each.name]),
        )
        for each in fields(kind)
        if "setting" in each.metadata and each.name not in without
    ]


def with_parameters(command: Callable[..., None], shared: Sequence[inspect.Parameter]) -> None:
    """Give a command that takes `**values` a parameter for each of them, beside its own."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}


def typed_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, as the fields have it; what was not is left out."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value not in (None, [])
    }
