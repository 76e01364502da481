"""Options as a TOML file: read with what is wrong said by name, and written whole, so that it repeats a run.

This module imports no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from sdscratch.errors import UsageError
from sdscratch.files import atomic_write
from sdscratch.settings import read_values, toml_value
from sdscratch.texts import NotText, read_text
from sdscratch.training.run.options import TrainOptions

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
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except NotText as error:
        raise UsageError(str(error)) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def read_config(path: Path, command: str, kind: type[TrainOptions]) -> dict[str, Any]:
    """The values in a file, by field.

    Raises:
        UsageError: as `read_values`, or it is of another kind of training.
    """
    record = read_toml(path)
    if (written := record.pop(COMMAND, command)) != command:
        raise UsageError(f"{path} is of a `train {written}`, not of a `train {command}`")
    return read_values(kind, record, str(path))


def write_config(path: Path, command: str, options: TrainOptions) -> None:
    """Write every option that has a value, in the order of their definition.

    Raises:
        SdscratchError: the operating system refuses.
    """
    lines = [f'{COMMAND} = "{command}"']
    for each in fields(options):
        value = getattr(options, each.name)
        if value is not None:
            lines.append(f"{each.name} = {toml_value(value)}")
    with atomic_write(path, overwrite=True) as file:
        file.write("\n".join([*lines, ""]).encode())


def differences(old: Mapping[str, Any], new: TrainOptions) -> list[str]:
    """What changed, an entry an option: `learning_rate from 0.001 to 0.0001`."""
    changed = []
    for each in fields(new):
        before, now = old.get(each.name, each.default), getattr(new, each.name)
        if before != now:
            changed.append(f"{each.name} from {toml_value(before)} to {toml_value(now)}")
    return changed
