"""Stable Diffusion 1.x written from scratch: `from sdscratch import load` (see `generation.pipeline`).

From the ground up; imports run strictly downward:

    errors.py     all that a user is told when something goes wrong, with exit codes
    hardware.py   what kind of device something is on
    home.py       whether there is a home, and where
    show.py       strangers' text on a terminal
    streams.py    standard streams that may be missing
    version.py    the version
    settings.py   one line a field: for the command line, files and errors
    checks.py     checks of what was typed that no range says
    options/      what a picture is asked for, and resolved
    texts.py      text that comes in, whatever its encoding
    files.py      files that are complete or absent
    device.py     where to compute, and how exactly
    models/       the networks as the papers have them
    diffusion/    the mathematics, without files or state
    text/         prompts, and the tokenizer
    images/       pictures in and out, with a record of how they were made
    tensorfiles/  any file of weights; never runs code from it
    checkpoints/  models as files
    fast/         the networks, faster
    addons/       what a user adds to a model: LoRAs, embeddings, autoencoders
    generation/   from a prompt to a picture
    training/     the networks trained, with or without a model to begin from
    jobs/         many pictures from one plan
    explain/      the making of one picture, as a page
    bench/        how fast it is here
    pictograms/   the model of our own: its data, shape, recipe and judge
    evaluation/   how good a model is
    cli/          the command line
    __main__.py   `python -m sdscratch`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdscratch.version import __version__

if TYPE_CHECKING:
    from sdscratch.generation.pipeline import Pipeline, load

__all__ = ["Pipeline", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch takes a second to import; the command line's help should not wait for it
    if name in ("Pipeline", "load"):
        from sdscratch.generation import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
