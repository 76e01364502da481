"""What the web UIs' parameters say of how noise became a picture, beside what every picture has."""

from __future__ import annotations

from collections.abc import Mapping

from sdscratch.checks import parse_threshold
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.options import ResolvedOptions

__all__ = ["sampling_words"]

# A1111's names of what weights do; the other tools' have none there.
EMPHASES: Mapping[str, str] = {"no-norm": "No norm", "ignore": "Ignore", "none": "None"}


def sampling_words(options: ResolvedOptions) -> dict[str, str]:
    """Keys and values in A1111's words, or where it has none in those of its extensions, or like them."""
    weighed = any(bracket in f"{options.prompt}{options.negative_prompt}" for bracket in "([")
    varied, fresh = options.variation_strength > 0.0, SAMPLERS[options.sampler].noise == "plain"
    words = {
        "Emphasis": EMPHASES.get(options.emphasis or "", options.emphasis) if weighed else None,
        "Variation seed": options.variation_seed if varied else None,
        "Variation seed strength": options.variation_strength if varied else None,
        "Seed resize from": options.seed_resize,
        "ENSD": options.ensd if options.ensd and fresh else None,
        "Sigmas": options.sigmas,
        "Prediction": options.prediction,
        "Noise Schedule": "Zero Terminal SNR" if options.zero_snr else None,
        "CFG rescale": options.rescale_cfg or None,
        "APG": options.apg,
        "PAG Scale": options.pag_scale or None,
        "FreeU": options.freeu,
    }
    if options.dynamic_threshold is not None:
        mimic, percentile = parse_threshold(options.dynamic_threshold)
        words |= {
            "Dynamic thresholding enabled": True,
            "Mimic scale": mimic,
            "Threshold percentile": percentile,
        }
    return {key: _written(value) for key, value in words.items() if value is not None}


def _written(value: str | float | bool) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
