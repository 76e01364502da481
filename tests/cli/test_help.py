"""The help, and that nothing is imported for it that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from sdscratch.cli.app import Commands
from sdscratch.cli.help import load_command
from sdscratch.cli.reference import commands
from support.cli import sdscratch

HEAVY = {"torch", "numpy", "PIL", "rich", "tokenizers", "huggingface_hub", "pydantic", "importlib.metadata"}


def imported(*words: str) -> set[str]:
    """The heavy modules that a command imports."""
    program = (
        "import sys; sys.argv = ['sdscratch', *sys.argv[1:]]\n"
        "from sdscratch.__main__ import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    return HEAVY & set(ran.stderr.split())


def test_the_help_imports_no_command_and_nothing_heavy() -> None:
    assert imported("--help") == imported("--version") == set()


def test_a_commands_help_imports_nothing_heavy() -> None:
    for name in ("txt2img", "convert-weights", "tokens", "info"):
        assert imported(name, "--help") <= {"pydantic", "importlib.metadata"}, name  # Typer's own


@pytest.mark.parametrize("name", Commands.places)
def test_the_list_says_what_the_first_line_of_the_help_says(name: str) -> None:
    place, line = Commands.places[name]
    assert " ".join(load_command(name, place).help.split("\n\n")[0].split()) == line


TRAININGS = ("autoencoder", "diffusion", "lora", "taesd", "shapes")


@pytest.mark.parametrize("words", [[name] for name in Commands.places] + [["train", n] for n in TRAININGS])
def test_examples_stand_as_they_were_written_and_fit_a_terminal(words: list[str]) -> None:
    text = sdscratch(*words, "--help").stdout.decode()
    examples = text.partition("Examples:")[2].partition("\n\nArguments")[0].partition("\n\nOptions")[0]
    paragraphs = [part for part in examples.split("\n\n") if part.strip().startswith("sdscratch ")]
    assert paragraphs or words == ["train"]
    for paragraph in paragraphs:
        *broken, last = paragraph.rstrip().split("\n")
        assert all(line.endswith("\\") for line in broken), paragraph
        assert not last.endswith("\\"), paragraph
        assert max(map(len, paragraph.split("\n"))) <= 80, paragraph


def test_a_command_that_is_nearly_right_is_guessed() -> None:
    result = sdscratch("txt2image", "a dog")
    said = "sdscratch: error: No such command 'txt2image'. Did you mean 'txt2img'?\n"
    assert (result.code, result.stderr) == (2, said)


def test_the_help_is_in_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for words in ((), ("info",)):
        assert b"\x1b" not in sdscratch(*words, "--help").stdout
        assert b"\x1b[36m-h, --help\x1b[0m" in sdscratch(*words, "--help", terminals=["stdout"]).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b" not in sdscratch("info", "--help", terminals=["stdout"]).stdout
    monkeypatch.setenv("NO_COLOR", "")  # empty means nothing (no-color.org)
    assert b"\x1b" in sdscratch("info", "--help", terminals=["stdout"]).stdout


def test_options_stand_in_their_panels_with_what_they_take() -> None:
    text = sdscratch("txt2img", "--help").stdout.decode()
    titles = [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles[:3] == ["Arguments", "Picture", "Sampling"]
    assert titles[-2:] == ["Output", "Options"]
    assert "\n  -s, --seed N " in text
    assert "\n  --lora FILE[:WEIGHT[:UNET_WEIGHT]]\n" in text
    assert "\n  -q, --quiet  " in text
    assert "\n  --to ldm|diffusers " in sdscratch("convert-weights", "--help").stdout.decode()


# How a line begins that cannot be read alone: it goes on a sentence that stands somewhere else.
GOING_ON = {
    "Of",
    "Or",
    "And",
    "To",
    "In",
    "Its",
    "Their",
    "Which",
    "What",
    "Whose",
    "How",
    "Where",
    "Whether",
    "Also",
}


@pytest.mark.parametrize("name", commands())
def test_the_help_of_an_option_begins_with_a_noun_or_a_verb_and_is_a_sentence(name: str) -> None:
    command = commands()[name]
    for parameter in command.get_params(typer.Context(command)):
        text = parameter.help
        assert text, parameter.name
        assert text[0].isupper(), text
        assert text.split()[0] not in GOING_ON | {"A", "The"}, text
        assert text.endswith("."), text
