"""What the docs say of the code is what the code says of itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sdscratch.cli.app import Commands
from sdscratch.cli.reference import commands, main, options_page, with_counts, with_tables
from sdscratch.errors import SdscratchError
from support.markdown import ROOT, Page, pages

AGAIN = "say `make docs`"


def test_the_table_of_options_is_what_the_commands_take() -> None:
    assert Page(ROOT / "docs" / "options.md").text == options_page(), AGAIN


def test_every_option_of_every_command_is_in_its_section() -> None:
    sections = re.split(r"^## ", options_page(), flags=re.MULTILINE)[1:]
    for name, command in commands().items():
        group, _, last = name.rpartition(" ")
        (section,) = [
            each
            for each in sections
            if last in re.findall(r"[\w-]+", title := each.partition("\n")[0])
            and title.startswith("train ") == bool(group)
        ]
        for parameter in command.get_params(typer.Context(command)):
            spelled = [*parameter.opts, *parameter.secondary_opts]
            if parameter.param_type_name == "option" and "--help" not in spelled:
                row = rf"^\| `([^`]*[ ,])?{re.escape(spelled[0])}[ ,`]"
                assert re.search(row, section, re.MULTILINE), (name, spelled)


def test_every_command_is_described() -> None:
    described = {name.partition(" ")[0] for name in commands()}
    assert described == set(Commands.places)


def test_rows_of_the_tables_have_three_cells() -> None:
    for line in options_page().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 4, line


@pytest.mark.parametrize("page", pages(), ids=str)
def test_tables_made_of_the_catalogues_are_up_to_date(page: Page) -> None:
    assert page.text == with_tables(page.text), AGAIN


def test_a_table_stands_between_its_marks_alone() -> None:
    text = "a\n<!-- spacings: made -->\nold\n<!-- /spacings -->\nb\n"
    made = with_tables(text)
    assert made.startswith("a\n<!-- spacings: made -->\n\n| spacing |")
    assert made.endswith("|\n\n<!-- /spacings -->\nb\n")
    assert "old" not in made
    assert with_tables(made) == made


def test_the_readme_counts_lines_as_they_are() -> None:
    text = Page(ROOT / "README.md").text
    assert text == with_counts(text, ROOT), AGAIN
    assert len(re.findall(r"\]\(src/[^)]+\) \| \d+ \|", text)) >= 8


def test_counts_are_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1\n2\n3\n")
    row = "| 1 | [`a.py`](src/a.py) | 1,200 | of 1,200 |\n"
    assert with_counts(row, tmp_path) == "| 1 | [`a.py`](src/a.py) | 3 | of 1,200 |\n"
    with pytest.raises(SdscratchError, match=r"b\.py cannot be read"):
        with_counts("[b](src/b.py) | 1 |", tmp_path)


def test_both_pages_are_written_anew(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Nothing counted\n")
    main(tmp_path)
    assert (tmp_path / "docs" / "options.md").read_text(encoding="utf-8") == options_page()
    assert (tmp_path / "README.md").read_text() == "# Nothing counted\n"


def test_the_readme_is_read_in_one_go() -> None:
    assert len(Page(ROOT / "README.md").text.splitlines()) <= 200


def test_the_reference_is_written_without_torch() -> None:
    check = "import sdscratch.cli.reference, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
