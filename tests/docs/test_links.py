"""The docs point at what is there: links, files, commands, options, modules, names in Python."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from importlib.util import find_spec
from inspect import signature

import pytest
import typer

from sdscratch import Pipeline, load
from sdscratch.cli.reference import commands
from sdscratch.cli.train import KINDS
from sdscratch.options import GenerateOptions
from sdscratch.settings import read_values, settings_of
from support.markdown import ROOT, Page, pages, words_of

PACKAGE = ROOT / "src" / "sdscratch"
PAGES = pages()
COMMANDS = commands()
GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}


def by_name(page: Page) -> str:
    return str(page)


def options_of(name: str) -> set[str]:
    """All that a command's options are typed as."""
    command = COMMANDS[name]
    parameters = command.get_params(typer.Context(command))
    return {spelled for each in parameters for spelled in (*each.opts, *each.secondary_opts)}


def own_words(words: list[str]) -> list[str] | None:
    """What follows `sdscratch` or `-m sdscratch` in a command; None where it is no command of ours."""
    if words[0].endswith("sdscratch"):
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1] == "sdscratch":
        return words[words.index("-m") + 2 :]
    return None


def split(words: list[str]) -> tuple[str, list[str]]:
    """A command's name, and what is typed after it."""
    count = 2 if words[0] in GROUPS else 1
    return " ".join(words[:count]), words[count:]


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in Page(target).anchors, link


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_that_are_named_are_there(page: Page) -> None:
    for span in page.spans:
        if re.fullmatch(r"(src|tests|docs)/[\w./-]+", span):
            assert (ROOT / span).exists(), span
        elif re.fullmatch(r"[a-z_]+/[\w/]+\.(py|txt)", span) and not span.startswith("tests/"):
            assert (PACKAGE / span).exists(), span
        elif re.fullmatch(r"sdscratch(\.\w+)+", span) and "-" not in span:
            assert is_named(span), span


def is_named(dotted: str) -> bool:
    """Whether a module, or something in one, or a key of a file's metadata, is called so."""
    if dotted.removeprefix("sdscratch.") in ("config", "defaults", "provenance", "scales", "tokenizer"):
        return True
    module, _, name = dotted.rpartition(".")
    try:
        return find_spec(dotted) is not None
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_in_examples_are_understood(page: Page) -> None:
    for words in page.commands():
        typed = own_words(words)
        if typed is None:
            continue
        assert typed, words
        if typed[0].startswith("-"):
            assert typed[0] in ("--help", "--version", "--install-completion"), words
            continue
        name, rest = split(typed)
        assert name in COMMANDS, words
        if "--help" in rest:
            continue
        try:
            COMMANDS[name].make_context(name, rest)  # parses, and runs nothing
        except typer.TyperException as error:
            pytest.fail(f"{' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_in_the_text_have_the_options_that_are_named(page: Page) -> None:
    for span in page.spans:
        if not span.startswith("sdscratch "):
            continue
        words = next(words_of(span.replace("…", "").replace("'", "")), [])[1:]
        if not words or words[0] == "COMMAND" or words[0].startswith("-") or words == ["train"]:
            continue
        name, rest = split(words)
        assert name in COMMANDS, span
        assert {
            word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"
        } <= options_of(name), span


@pytest.mark.parametrize("page", [page for page in PAGES if "weights" not in str(page)], ids=by_name)
def test_options_in_the_text_are_options_of_some_command(page: Page) -> None:
    ours = {"--help", "--version", "--install-completion"}.union(*map(options_of, COMMANDS))
    for span in page.spans:
        if re.match(r"--?[a-z]", span):
            for word in re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", span):
                assert word in ours, span


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_targets_and_modules_that_are_named_can_be_run(page: Page) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    shell = "\n".join([*page.spans, *page.blocks("sh"), *re.findall(r"^    (.*)$", page.text, re.MULTILINE)])
    for target in re.findall(r"^make ([a-z-]+)", shell, re.MULTILINE):
        assert target in targets, target
    for module in re.findall(r"python -m (sdscratch[\w.]*)", page.text):
        assert find_spec(module) is not None, module


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_python_examples_name_what_there_is(page: Page) -> None:
    drawing = set(settings_of(GenerateOptions)) | {"prompt"}
    takes = {
        "load": set(signature(load).parameters),
        "txt2img": set(signature(Pipeline.txt2img).parameters) | drawing,
        "img2img": set(signature(Pipeline.img2img).parameters) | drawing,
    }
    for block in page.blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdscratch"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), block
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if called in takes:
                    assert {each.arg for each in node.keywords} <= takes[called], block


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_configuration_files_in_examples_can_be_read(page: Page) -> None:
    for block in page.blocks("toml"):
        record = tomllib.loads(block)
        kind = KINDS[record.pop("train")]
        kind(**read_values(kind, record, "the example"))  # refuses what is out of range


def test_a_page_is_linked_from_the_index_and_the_index_from_the_readme() -> None:
    index = Page(ROOT / "docs" / "README.md")
    linked = {(index.path.parent / link.partition("#")[0]).resolve() for link in index.links}
    assert {page.path for page in PAGES if page.path.parent == index.path.parent} - linked <= {index.path}
    assert "docs/README.md" in Page(ROOT / "README.md").links


def test_the_tree_names_every_room() -> None:
    (tree,) = [
        block for block in Page(ROOT / "docs" / "contributing.md").blocks("") if "src/sdscratch/" in block
    ]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/", tree, re.MULTILINE)) == rooms
