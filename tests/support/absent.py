"""What a test does where something outside the project is absent: skip, with the reason; in CI, fail."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["absent"]


def absent(what: str) -> NoReturn:
    """Skip this test for want of `what`; fail it where SDSCRATCH_NOTHING_ABSENT is set, as .ci/run does."""
    if os.environ.get("SDSCRATCH_NOTHING_ABSENT"):
        pytest.fail(f"must not be absent here: {what}")
    pytest.skip(what)
