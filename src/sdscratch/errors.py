"""What can go wrong, as a tree; each kind carries the exit code that scripts rely on.

    SdscratchError            1   the work failed
    ├── UsageError            2   options that are wrong, or wrong together
    ├── CheckpointError       3   a model or add-on file: missing, unreadable, refused
    │   └── TokenizerError    3   a tokenizer file: likewise
    ├── ImageError            4   a picture or jobs file: missing, unreadable, refused
    └── DeviceError           5   out of memory, or no such device

Every message is one sentence that says what was wrong, with which file or option, and what to do.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "INTERRUPTED",
    "CheckpointError",
    "DeviceError",
    "ImageError",
    "SdscratchError",
    "TokenizerError",
    "UsageError",
]


INTERRUPTED = 130  # the exit code after Ctrl-C, which is no error of ours


class SdscratchError(Exception):
    """The work failed (exit code 1); the base of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(SdscratchError, ValueError):
    """An option is wrong, or wrong together with another (exit code 2)."""

    exit_code = 2


class CheckpointError(SdscratchError):
    """A model or add-on file is missing, unreadable or refused (exit code 3)."""

    exit_code = 3


class TokenizerError(CheckpointError):
    """A tokenizer file is missing, unreadable or refused (exit code 3)."""


class ImageError(SdscratchError):
    """A picture that should be read is missing, unreadable or refused (exit code 4)."""

    exit_code = 4


class DeviceError(SdscratchError):
    """The device is not there, or out of memory (exit code 5)."""

    exit_code = 5
