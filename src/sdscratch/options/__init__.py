"""What a user can ask for, as frozen values: one definition serves the command line, Python, and metadata.

`ResolvedOptions` lists every option once. `GenerateOptions`, made from it, is what was asked, None where the
model decides; `resolve` fills those from the model's own `Defaults`. Ranges are checked here, so that every
way in refuses the same things in the same words. This package imports no torch.

fields.py           what an option's line holds, and the words and bounds that several share
picture.py          what a picture shows, and its size
sampling.py         how noise becomes a picture
variation.py        how the noise is varied
guidance.py         what is done to guidance besides its scale
large.py            what is larger than a model draws at once: a second pass, tiles
approximations.py   what is faster, and not quite the same picture
together.py         what several options say together
resolved.py         all of them as one: asked for, checked, and filled
sizes.py            the size of what is drawn where a picture is given, and the seed where none is
"""

from sdscratch.checks import DTYPES, check_placement, parse_interval
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.options.fields import (
    APPROXIMATIONS,
    LOW_MEMORY_TILE,
    MAX_SEED,
    MODEL,
    PICTURE,
    SAMPLERS,
    SCHEDULERS,
)
from sdscratch.options.large import hires_size, parse_upscaler
from sdscratch.options.resolved import SD1_DEFAULTS, Defaults, GenerateOptions, ResolvedOptions, changed
from sdscratch.options.sizes import Fit, fit_of_init, large_init_notice, random_seed, size_of_init
from sdscratch.options.variation import check_resize, numbered_seeds, seeds_of

__all__ = [
    "APPROXIMATIONS",
    "DTYPES",
    "LOW_MEMORY_TILE",
    "MAX_SEED",
    "MODEL",
    "PICTURE",
    "SAMPLERS",
    "SCHEDULERS",
    "SD1_DEFAULTS",
    "Defaults",
    "Fit",
    "GenerateOptions",
    "ResolvedOptions",
    "changed",
    "check_placement",
    "check_resize",
    "fit_of_init",
    "hires_size",
    "large_init_notice",
    "numbered_seeds",
    "parse_interval",
    "parse_sampler",
    "parse_scheduler",
    "parse_upscaler",
    "random_seed",
    "seeds_of",
    "size_of_init",
]
