"""What the docs say in numbers and names is so."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields

import sdscratch.errors
from sdscratch.errors import INTERRUPTED, SdscratchError
from sdscratch.images import Record
from sdscratch.jobs.axes import expand
from sdscratch.jobs.lines import read_line
from sdscratch.jobs.names import DEFAULT, FIELDS
from sdscratch.text.prompt import selected
from sdscratch.text.syntax import editing
from support.markdown import ROOT, Page

DOCS = ROOT / "docs"


def first_cells(text: str, heading: str) -> list[str]:
    """The names in the first cells of the table under a heading."""
    table = text.partition(f"{heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell) or [cell]]


def test_the_example_of_a_record_is_one_and_every_field_is_explained() -> None:
    page = Page(DOCS / "records.md")
    (example,) = page.blocks("json")
    record = Record.from_json(example)
    assert json.loads(record.to_json()) == json.loads(example)
    explained = first_cells(page.text, "## The record in a picture")
    assert {each.name for each in fields(Record)} <= set(explained)


def test_every_exit_code_is_explained() -> None:
    explained = set(first_cells(Page(DOCS / "records.md").text, "### Exit codes")) - {"code", "---:"}
    errors = [each for each in vars(sdscratch.errors).values() if isinstance(each, type)]
    codes = {str(each.exit_code) for each in errors if issubclass(each, SdscratchError)}
    assert explained == codes | {"0", str(INTERRUPTED)}


def test_the_readme_says_the_speeds_that_the_page_on_speed_says() -> None:
    measured = Page(ROOT / "README.md").text.partition("## How fast")[2].partition("\n## ")[0]
    numbers = re.findall(r"\d+\.\d+ (?:s|GB)", measured)
    page = Page(DOCS / "speed.md").text
    assert len(numbers) >= 10
    assert [number for number in numbers if number not in page] == []


def test_the_glossary_gives_every_term_its_meaning_and_its_file() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.*) \|$", Page(DOCS / "glossary.md").text, re.MULTILINE)
    assert len(rows) >= 30
    assert len({term for term, _ in rows}) == len(rows)
    for term, cells in rows:
        _, meaning, _, file = cells.split(" | ")
        assert len(meaning) > 20, term
        assert "](../src/sdscratch/" in file, term


def test_the_source_distribution_holds_the_docs() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert {"/docs", "/weights", "/README.md"} <= set(build["targets"]["sdist"]["include"])


def test_the_makefile_says_at_its_head_what_it_can_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    head = makefile.partition("\n\n")[0]
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    assert targets - {"clean"} <= set(re.findall(r"[a-z-]+", head))


def test_the_plans_in_the_examples_say_what_is_said_of_them() -> None:
    page = Page(DOCS / "jobs.md")
    lines, plan, variants = page.blocks("")
    prompts = [read_line(line, "the example") for line in lines.splitlines()]
    assert [said["prompt"] for said in prompts] == ["a lighthouse in a storm"] * 3
    assert [said.get("negative_prompt") for said in prompts] == [None, "people", "people"]
    jobs = list(expand(tomllib.loads(plan), "the example"))
    assert len(jobs) == 2 * 4 * 3 * 4
    assert (jobs[0]["seed"], jobs[0]["steps"], jobs[-1]["strength"]) == (1, 10, 1.0)
    prompts = [job["prompt"] for job in expand(tomllib.loads(variants), "the example")]
    stages = [editing.stages(prompt, 30) for prompt in prompts]
    read = [tuple(each[selected(each, step)].text for step in range(30)) for each in stages]
    computed = {(texts[: step + 1]) for texts in read for step in range(30)}  # what was read until then
    assert f"three pictures in {len(computed)} steps, not {30 * len(read)}" in page.text
    assert f"`{DEFAULT}`" in page.text
    assert set(FIELDS) <= set(re.findall(r"`\{(\w+)\}`", page.text))


def test_the_tables_of_samplers_and_tools_are_filled() -> None:
    for name, least in (("samplers", 40), ("dialects", 10)):
        text = Page(DOCS / f"{name}.md").text
        assert len(re.findall(r"^\| `", text, re.MULTILINE)) >= least, name
