"""One line a field: what it says reaches the command line, files and errors."""

from __future__ import annotations

import doctest
import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

import sdscratch.settings
from sdscratch.cli.help import Command
from sdscratch.cli.parameters import parameters_of, typed_values, with_parameters
from sdscratch.errors import UsageError
from sdscratch.settings import (
    check_ranges,
    option_names,
    read_values,
    setting,
    settings_of,
    shown_default,
    toml_value,
)


@dataclass(frozen=True)
class Options:
    """A field of every kind."""

    place: str = setting("", "Folder to write to.", "Output", aliases=("-o", "--out-dir"))
    steps: int = setting(30, "Number of steps.", "Sampling", low=1, high=1000)
    scale: float | None = setting(
        None, "Strength of guidance.", "Sampling", low=0, default="the model's own", aliases=("--cfg",)
    )
    seed: int = setting(0, "Seed of every random choice.", "Sampling", low=0, high=2**63 - 1)
    model: str = setting("default", "Model to draw with.", "Model", envvar="A_MODEL", metavar="FILE")
    flip: bool = setting(True, "Mirror pictures.", "Sampling", negative="--never-flip")
    quiet: bool = setting(False, "Show nothing.", "Output", negative="", aliases=("-q",))
    loud: bool = setting(False, "Show all.", "Output")
    kind: Literal["round", "square"] | None = setting(None, "Shape of pixels.", "Sampling")
    colour: str = setting("red", "Colour of pixels.", "Sampling", choices=("red", "green"))
    prompt: tuple[str, ...] = setting((), "Prompt to draw; repeatable.", "Output")
    unsaid: int = 3


HINTS = get_type_hints(Options)
FIELDS = {each.name: each for each in fields(Options)}


def asked(*words: str, **environment: str) -> dict[str, Any]:
    """What reaches a command with an option for every field."""
    found: dict[str, Any] = {}

    def command(own: int = 5, **values: Any) -> None:
        found.update(typed_values(values), own=own)

    with_parameters(command, parameters_of(Options, without=("seed",)))
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=Command)(command)
    result = CliRunner().invoke(app, list(words), env=environment)
    assert result.exit_code == 0, result.output
    return found or {"help": result.output}


def test_the_example_holds() -> None:
    assert doctest.testmod(sdscratch.settings) == doctest.TestResults(failed=0, attempted=2)


def test_what_is_not_typed_is_left_to_others() -> None:
    assert asked() == {"own": 5}


def test_every_spelling_reaches_its_field() -> None:
    words = "-o there --steps 3 --cfg 2 --never-flip -q --no-loud --kind round --prompt a --prompt b --own 6"
    assert asked(*words.split()) == {
        "place": "there", "steps": 3, "scale": 2.0, "flip": False, "quiet": True, "loud": False,
        "kind": "round", "prompt": ("a", "b"), "own": 6,
    }  # fmt: skip
    assert asked("--out-dir", "x", A_MODEL="mine")["place"] == "x"
    assert asked(A_MODEL="mine")["model"] == "mine"


def test_the_help_says_what_the_field_says() -> None:
    text = asked("--help")["help"]
    assert "--seed" not in text
    assert "--unsaid" not in text
    for expected in (
        "Sampling", "-o, --place, --out-dir TEXT", "Folder to write to.", "Number of steps.",
        "[default: 30]", "[default: the model's own]", "--flip, --never-flip", "-q, --quiet",
        "--loud, --no-loud", "--model FILE",
    ):  # fmt: skip
        assert expected in text


def test_names_and_defaults_as_words() -> None:
    assert option_names(FIELDS["scale"], HINTS["scale"]) == ("--scale", "--cfg")
    assert option_names(FIELDS["loud"], HINTS["loud"]) == ("--loud/--no-loud",)
    assert option_names(FIELDS["quiet"], HINTS["quiet"]) == ("--quiet", "-q")
    shown = {name: shown_default(FIELDS[name]) for name in settings_of(Options)}
    assert shown == {
        "place": "", "steps": "30", "scale": "the model's own", "seed": "0", "model": "default", "flip": "on",
        "quiet": "", "loud": "", "kind": "", "colour": "red", "prompt": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", 0, "--steps is 0, but must be from 1 to 1000"),
        ("steps", 1001, "--steps is 1001, but must be from 1 to 1000"),
        ("scale", -0.5, "--scale is -0.5, but must be at least 0"),
        ("scale", math.nan, "--scale is nan, but must be at least 0"),
        ("seed", 2**63, f"--seed is {2**63}, but must be from 0 to {2**63 - 1}"),
        ("kind", "oval", "--kind is 'oval', but must be one of round, square"),
        ("colour", "blue", "--colour is 'blue', but must be one of red, green"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_ranges(Options(**{name: value}))
    assert str(caught.value) == said


def test_the_ends_of_ranges_and_what_is_left_open_are_allowed() -> None:
    for values in ({"steps": 1}, {"steps": 1000}, {"scale": math.inf}, {"scale": None}, {"kind": None}):
        check_ranges(Options(**values))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^steps is 0"):
        check_ranges(Options(steps=0), spell=str)


def test_a_file_may_say_a_field_by_any_long_name() -> None:
    record = {"out-dir": "here", "cfg": 2, "prompt": ["a"], "kind": "round", "quiet": True}
    values = read_values(Options, record, "x.toml")
    assert values == {"place": "here", "scale": 2.0, "prompt": ("a",), "kind": "round", "quiet": True}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"stepps": 3}, "x.toml has a key 'stepps', which nothing is called; the nearest is 'steps'"),
        ({"cfg": 1.0, "scale": 2.0}, "x.toml says scale twice; the second time as 'scale'"),
        ({"steps": "3"}, "x.toml: steps is '3', but must be a whole number"),
        ({"steps": True}, "x.toml: steps is True, but must be a whole number"),
        ({"scale": "3"}, "x.toml: scale is '3', but must be a number"),
        ({"flip": 1}, "x.toml: flip is 1, but must be true or false"),
        ({"kind": 3}, "x.toml: kind is 3, but must be a string"),
        ({"prompt": "a"}, "x.toml: prompt is 'a', but must be a list of strings"),
        ({"q": True}, "x.toml has a key 'q'"),
    ],
)
def test_what_a_file_says_wrongly_is_told_by_its_key(record: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_values(Options, record, "x.toml")
    assert str(caught.value).startswith(said)


def test_values_are_written_as_toml() -> None:
    written = [toml_value(value) for value in (None, True, 3, 1e-5, 'a"b\x7f', ("a", "b"))]
    assert written == ["nothing", "true", "3", "1e-05", '"a\\"b\\u007F"', '["a", "b"]']


def test_a_value_of_a_page_is_told_in_a_line() -> None:
    with pytest.raises(UsageError, match="steps is 'bbb") as caught:
        read_values(Options, {"steps": "b" * 5000}, "a.toml")
    assert len(str(caught.value)) < 400
