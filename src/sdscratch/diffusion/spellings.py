"""Samplers and spacings by any name that a tool has for them (no torch)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from sdscratch.diffusion.catalogue import SAMPLERS, SPACINGS
from sdscratch.errors import UsageError

__all__ = ["parse_sampler", "parse_scheduler"]

# What other tools write differently, whatever the sampler.
ONE_WAY = (("dpmpp", "dpm++"), ("cfgpp", "cfg++"), ("ancestral", "a"), ("scheduler", ""))


def plain(name: str) -> str:
    """A name without case, spaces and punctuation (but +: it tells 2M from ++2M), in one of its ways."""
    kept = re.sub(r"[^a-z0-9+]", "", name.lower())
    for written, ours in ONE_WAY:
        kept = kept.replace(written, ours)
    return kept.replace("gpu", "")


@cache
def sampler_spellings() -> Mapping[str, str]:
    """Every plain spelling of every sampler."""
    return {
        spelling: row.name
        for row in reversed(tuple(SAMPLERS.values()))
        for spelling in (*row.spellings, plain(row.title), plain(row.name))
    }


@cache
def spacing_spellings() -> Mapping[str, str]:
    """Every plain spelling of every spacing."""
    return {
        spelling: row.name
        for row in SPACINGS.values()
        for spelling in (plain(row.name), plain(row.title), *row.spellings)
    }


def parse_scheduler(name: str) -> str:
    """The spacing meant by `name`, in any of the usual spellings.

    Raises:
        UsageError: no such spacing.
    """
    found = spacing_spellings().get(plain(name))
    if found is None:
        raise UsageError(f"no scheduler is called {name!r}; choose one of {', '.join(SPACINGS)}")
    return found


def parse_sampler(name: str) -> tuple[str, str | None]:
    """The sampler meant by `name`, and the spacing where the name says one ("DPM++ 2M Karras").

    Raises:
        UsageError: no such sampler.
    """
    spellings, spacings = sampler_spellings(), spacing_spellings()
    for whole in (plain(name), plain(name).removeprefix("k")):  # k_euler: k-diffusion's
        if whole in spellings:
            return spellings[whole], None
        for spacing in sorted(spacings, key=len, reverse=True):
            stem = whole.removesuffix(spacing)
            if stem != whole and stem in spellings:
                return spellings[stem], spacings[spacing]
    raise UsageError(f"no sampler is called {name!r}; choose one of {', '.join(SAMPLERS)}")
