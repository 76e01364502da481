"""Options as a TOML file: read with what is wrong said by name, and written whole, so that it repeats a run.

This module imports no torch.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from sdscratch.errors import UsageError
from sdscratch.files import atomic_write
from sdscratch.training.options import TrainOptions

__all__ = ["CONFIG", "differences", "read_config", "read_toml", "write_config"]

CONFIG = "config.toml"  # in a run's folder
COMMAND = "train"  # its key that says which kind of training

Kind = TypeVar("Kind", bound=TrainOptions)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        UsageError: it is missing, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def read_config(path: Path, command: str, kind: type[TrainOptions]) -> dict[str, Any]:
    """The values in a file, by field; dashes in keys are as good as underscores.

    Raises:
        UsageError: a key that nothing is called, a value of another type, or another kind of training.
    """
    record = {key.replace("-", "_"): value for key, value in read_toml(path).items()}
    if (written := record.pop(COMMAND, command)) != command:
        raise UsageError(f"{path} is of a `train {written}`, not of a `train {command}`")
    hints = get_type_hints(kind)
    known = [each.name for each in fields(kind)]
    for key in record:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise UsageError(f"{path} has a key {key!r}, which nothing is called; the nearest is {near[0]!r}")
    return {key: _typed(f"{path}: {key}", hints[key], value) for key, value in record.items()}


def write_config(path: Path, command: str, options: TrainOptions) -> None:
    """Write every option that has a value, in the order of their definition.

    Raises:
        SdscratchError: the operating system refuses.
    """
    lines = [f'{COMMAND} = "{command}"']
    for each in fields(options):
        value = getattr(options, each.name)
        if value is not None:
            lines.append(f"{each.name} = {_written(value)}")
    with atomic_write(path, overwrite=True) as file:
        file.write("\n".join([*lines, ""]).encode())


def differences(old: Mapping[str, Any], new: TrainOptions) -> list[str]:
    """What changed, an entry an option: `learning_rate from 0.001 to 0.0001`."""
    changed = []
    for each in fields(new):
        before, now = old.get(each.name, each.default), getattr(new, each.name)
        if before != now:
            changed.append(f"{each.name} from {_written(before)} to {_written(now)}")
    return changed


def _typed(name: str, hint: Any, value: Any) -> Any:
    """A TOML value in a field's type."""
    kinds = [
        kind for kind in (get_args(hint) if NoneType in get_args(hint) else (hint,)) if kind is not NoneType
    ]
    (kind,) = kinds
    if kind is float and type(value) is int:
        return float(value)
    if get_origin(kind) is tuple and isinstance(value, list) and all(type(item) is str for item in value):
        return tuple(value)
    expected = str if get_origin(kind) is Literal else kind
    if type(value) is not expected:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
        raise UsageError(f"{name} is {value!r}, but must be {words.get(expected, 'a list of strings')}")
    return value


def _written(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return str(value).lower() if isinstance(value, bool) else repr(value)
