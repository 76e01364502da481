"""Tables of the docs that come from the catalogue of samplers and from the tools' conventions (no torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sdscratch.diffusion.catalogue import SAMPLERS, SPACINGS, SamplerSpec
from sdscratch.diffusion.conventions import CONVENTIONS

__all__ = ["TABLES"]

DENOISINGS: Mapping[str, str] = {
    "n": "1",
    "n+1": "1, the first 2",
    "2n-1": "2, the last 1",
    "3n-2": "3, the last 1",
    "3n-3": "3, the last two fewer",
    "adaptive": "as many as it needs",
}
NOISE: Mapping[str, str] = {"none": "–", "plain": "fresh", "brownian": "of a Brownian path"}

# What a tool's row of the table shows: the field of a convention, and its heading.
DIALECTS: Mapping[str, str] = {
    "syntax": "syntax",
    "emphasis": "emphasis",
    "spacings": "spacings",
    "timesteps": "timesteps",
    "start": "start",
    "strength": "strength",
    "posterior": "posterior",
    "noise": "noise",
    "draws": "draws",
    "clip_skip_none": "clip skip",
    "rescales": "rescaling",
}


def samplers() -> Iterator[str]:
    """A row a sampler."""
    yield from head("sampler", "in the web UIs", "own spacing", "web UIs' spacing", "passes a step", "noise")
    for spec in SAMPLERS.values():
        yield row(
            f"`{spec.name}`",
            spec.title,
            f"`{spec.spaced.scheduler}`",
            f"`{spec.webui or 'normal'}`",
            DENOISINGS[spec.denoisings],
            noise_of(spec),
        )


def noise_of(spec: SamplerSpec) -> str:
    """What a sampler draws."""
    return "with churn" if spec.noise == "none" and "s_churn" in spec.parameters else NOISE[spec.noise]


def spacings() -> Iterator[str]:
    """A row a spacing."""
    yield from head("spacing", "in the web UIs")
    for spec in SPACINGS.values():
        yield row(f"`{spec.name}`", spec.title)


def dialects() -> Iterator[str]:
    """A row a tool."""
    yield from head("tool", *DIALECTS.values())
    for tool in CONVENTIONS.values():
        yield row(f"`{tool.name}`", *(str(getattr(tool, name)) for name in DIALECTS))


def sources() -> Iterator[str]:
    """Where each tool's row was read."""
    yield from head("tool", "read in")
    for tool in CONVENTIONS.values():
        yield row(f"`{tool.name}`", tool.source)


def head(*names: str) -> Iterator[str]:
    """The first two lines of a table."""
    yield row(*names)
    yield "|" + "---|" * len(names)


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "samplers": samplers,
    "spacings": spacings,
    "dialects": dialects,
    "sources": sources,
}
