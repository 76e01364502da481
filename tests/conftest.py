"""What every test runs under."""

from __future__ import annotations

from hypothesis import settings

# no time limit for an example: machines that are busy with other things would fail tests that hold
settings.register_profile("sdscratch", deadline=None)
settings.load_profile("sdscratch")
