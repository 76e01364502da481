"""Every package's `__init__` is its map: each file in one line, none forgotten, none that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sdscratch

ROOT = Path(sdscratch.__file__).parent
LONGEST = 350  # lines of a file
# Files that are longer; the list may only become shorter.
LONGER = {
    "addons/lora.py": 360,
    "generation/pipeline.py": 400,
    "text/chunks.py": 360,
}

LINE = re.compile(r"^ *(\w+(?:\.py|/)) +\S", re.MULTILINE)


def packages() -> list[Path]:
    return sorted(path.parent for path in ROOT.rglob("__init__.py"))


def written(package: Path) -> list[str]:
    """What the map of a package names, `name.py` or `name/`, line by line."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text()), clean=False) or ""
    return LINE.findall(text)


def there(package: Path) -> set[str]:
    """The files of a package, and the packages in it."""
    files = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    return files | {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}


@pytest.mark.parametrize("package", packages(), ids=lambda path: str(path.relative_to(ROOT.parent)))
def test_a_package_is_mapped_by_its_docstring(package: Path) -> None:
    named = written(package)
    assert len(named) == len(set(named)), "named twice"
    assert set(named) == there(package)


def test_no_file_is_long() -> None:
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in ROOT.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > LONGER.get(name, LONGEST)} == {}
    assert all(lines.get(name, 0) > LONGEST for name in LONGER), "one of them is short now: take it out"
