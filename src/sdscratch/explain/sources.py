"""Where in the installed source something is: its file, its line, a link there, and the lines themselves."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Source", "source_of"]

ROOT = Path(__file__).parent.parent
MOST_LINES = 24


@dataclass(frozen=True)
class Source:
    """A few lines of the package.

    Attributes:
        file: as `models/unet.py`.
        line: of the definition, from 1.
        link: to the installed file.
        code: the definition without its docstring; long ones end with an ellipsis.
    """

    file: str
    line: int
    link: str
    code: str


def source_of(thing: Any) -> Source:
    """The source of a function or class of this package."""
    thing = inspect.unwrap(thing)
    path = Path(inspect.getsourcefile(thing) or "")
    lines, first = inspect.getsourcelines(thing)
    return Source(
        file=path.relative_to(ROOT).as_posix(),
        line=first,
        link=f"{path.as_uri()}#L{first}",
        code=shortened(without_docstring(textwrap.dedent("".join(lines)))),
    )


def without_docstring(code: str) -> str:
    """A definition's lines but for its docstring."""
    (definition,) = ast.parse(code).body
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    if ast.get_docstring(definition) is None:
        return code
    docstring = definition.body[0]
    lines = code.splitlines()
    del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines)


def shortened(code: str) -> str:
    """At most `MOST_LINES` lines."""
    lines = code.strip("\n").splitlines()
    return "\n".join(lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "    …"])
