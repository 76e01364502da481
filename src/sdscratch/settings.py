"""What can be asked of a command, one line a field: for the command line, Python, TOML, and the errors.

Options are frozen dataclasses whose fields are made by `setting`. From them come the command line
(`cli.parameters`), the files that repeat a run, ranges and choices, and the tables in the docs.
This module imports no torch.

    >>> @dataclass(frozen=True)
    ... class Options:
    ...     steps: int = setting(30, "Number of denoising steps.", "Sampling", low=1, high=1000)
    >>> check_ranges(Options(steps=0))
    Traceback (most recent call last):
    sdscratch.errors.UsageError: --steps is 0, but must be from 1 to 1000
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sdscratch.errors import UsageError
from sdscratch.show import quoted

__all__ = [
    "Setting",
    "check_ranges",
    "choices_of",
    "hints_of",
    "kind_of",
    "option_name",
    "option_names",
    "read_values",
    "setting",
    "settings_of",
    "shown_default",
    "toml_value",
]


@dataclass(frozen=True)
class Setting:
    """What is said of a field, and what it may hold.

    Args:
        help: begins with a noun or a verb, and is read alone.
        panel: the section of the help that it stands in.
        low: the least value; None leaves both ends open, as a text or a flag has them.
        high: the greatest value; None is any.
        default: in words, where the value is None until something else decides.
        metavar: what stands for the value in the help.
        negative: the option that switches a flag off, `--no-NAME` unless said; "" is none.
        aliases: what else it is typed as: `-n`, `--cfg`. Long ones are keys of files, too.
        envvar: the environment's variable that holds a default.
        alone: the number that the option means where none follows it.
        choices: the values, where the field's type does not list them.
        check: looks at a value that is there, and raises `UsageError` in its own words.
    """

    help: str
    panel: str
    low: float | None = None
    high: float | None = None
    default: str | None = None
    metavar: str | None = None
    negative: str | None = None
    aliases: tuple[str, ...] = ()
    envvar: str | None = None
    choices: tuple[str, ...] = ()
    alone: int | None = None
    check: Callable[[Any], object] | None = None


def setting(value: Any, help: str, panel: str, **about: Any) -> Any:
    """A field with its default and what is said of it; `about` as `Setting` has it."""
    return field(default=value, metadata={"setting": Setting(help, panel, **about)})


def settings_of(kind: Any) -> dict[str, Setting]:
    """What is said of each field of a dataclass, or of one of its values; others' fields are left out."""
    return {each.name: each.metadata["setting"] for each in fields(kind) if "setting" in each.metadata}


def hints_of(kind: type[Any]) -> Mapping[str, Any]:
    """The types of a dataclass's fields, worked out once: a plan of a million lines asks for them often."""
    return _hints(kind)  # type: ignore[arg-type]  # classes are hashable


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def kind_of(hint: Any) -> Any:
    """A field's type without the None that it may be."""
    (kind,) = (each for each in _alternatives(hint) if each is not NoneType)
    return kind


@cache
def choices_of(hint: Any) -> tuple[str, ...]:
    """The values that a field's type lists, if it does."""
    return next((get_args(kind) for kind in _alternatives(hint) if get_origin(kind) is Literal), ())


def option_name(name: str) -> str:
    """A field as it is typed: `--learning-rate`."""
    return f"--{name.replace('_', '-')}"


def option_names(each: Field[Any], hint: Any) -> tuple[str, ...]:
    """All that a field is typed as; a flag's first is `--NAME/--no-NAME`."""
    about: Setting = each.metadata["setting"]
    name = option_name(each.name)
    if kind_of(hint) is bool and about.negative != "":
        name = f"{name}/{about.negative or name.replace('--', '--no-', 1)}"
    return name, *about.aliases


def shown_default(each: Field[Any]) -> str:
    """A field's default as the help shows it; "" for what is off or empty."""
    about: Setting = each.metadata["setting"]
    if about.default is not None:
        return about.default
    default = each.default
    if default is None or default is False or default in ((), ""):
        return ""
    return "on" if default is True else f"{default}"


def check_ranges(options: Any, spell: Callable[[str], str] = option_name) -> None:
    """Check every field of a dataclass of settings; None is allowed wherever the type allows it.

    Args:
        spell: how an error names a field.

    Raises:
        UsageError: a value out of its range, or none of the choices.
    """
    hints = hints_of(type(options))
    for name, about in settings_of(options).items():
        value = getattr(options, name)
        choices = choices_of(hints[name]) or about.choices
        if choices and value is not None and value not in choices:
            raise UsageError(f"{spell(name)} is {quoted(value)}, but must be one of {', '.join(choices)}")
        if isinstance(value, int | float) and not isinstance(value, bool) and about.low is not None:
            _check_range(spell(name), value, about.low, about.high)
        if about.check is not None and value is not None:
            about.check(value)


def read_values(kind: type[Any], record: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A file's values, by field; dashes in keys are as good as underscores, and aliases as names.

    Args:
        record: of a TOML or JSON file; a whole number may stand for any number.
        place: how an error names the file, and where in it.

    Raises:
        UsageError: a key that nothing is called, a field given twice, or a value of another type.
    """
    hints, known = hints_of(kind), _keys(kind)  # type: ignore[arg-type]  # classes are hashable
    values: dict[str, Any] = {}
    for key, value in record.items():
        plain = key.replace("-", "_")
        if plain not in known:
            near = difflib.get_close_matches(plain, known, n=1, cutoff=0.0)
            raise UsageError(
                f"{place} has a key {quoted(plain)}, which nothing is called; the nearest is {near[0]!r}"
            )
        name = known[plain]
        if name in values:
            raise UsageError(f"{place} says {name} twice; the second time as {quoted(key)}")
        values[name] = _typed(f"{place}: {plain}", hints[name], value)
    return values


def toml_value(value: Any) -> str:
    """A field's value as TOML has it; "nothing" for None, which TOML cannot say."""
    if value is None:
        return "nothing"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return get_args(hint) if NoneType in get_args(hint) else (hint,)


def _check_range(name: str, value: float, low: float, high: float | None) -> None:
    # `not value >= low`, so that NaN is refused too
    if not value >= low or not value <= (math.inf if high is None else high):
        allowed = f"at least {_number(low)}" if high is None else f"from {_number(low)} to {_number(high)}"
        raise UsageError(f"{name} is {value}, but must be {allowed}")


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@cache
def _keys(kind: Any) -> Mapping[str, str]:
    """What a field may be called in a file → its name."""
    keys = {each.name: each.name for each in fields(kind)}
    for name, about in settings_of(kind).items():
        longs = (alias[2:] for alias in about.aliases if alias.startswith("--"))
        keys |= {long.replace("-", "_"): name for long in longs}
    return keys


def _typed(name: str, hint: Any, value: Any) -> Any:
    """A file's value in a field's type."""
    kind = kind_of(hint)
    if kind is float and type(value) is int:
        return float(value)
    if get_origin(kind) is tuple and isinstance(value, list) and all(type(item) is str for item in value):
        return tuple(value)
    expected = str if get_origin(kind) is Literal else kind
    if type(value) is not expected:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
        raise UsageError(f"{name} is {quoted(value)}, but must be {words.get(expected, 'a list of strings')}")
    return value
