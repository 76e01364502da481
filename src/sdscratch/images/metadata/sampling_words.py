"""What the web UIs' parameters say of how noise became a picture, beside what every picture has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdscratch.checks import parse_threshold
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.errors import UsageError
from sdscratch.options import GenerateOptions, ResolvedOptions

__all__ = ["read_sampling", "sampling_words"]

# A1111's names of what weights do; the other tools' have none there.
EMPHASES: Mapping[str, str] = {"no-norm": "No norm", "ignore": "Ignore", "none": "None"}
ZERO_SNR = "Zero Terminal SNR"
MIMIC, PERCENTILE, THRESHOLDING = "Mimic scale", "Threshold percentile", "Dynamic thresholding enabled"


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
        "Noise Schedule": {True: ZERO_SNR, False: "Default", None: None}[options.zero_snr],
        "CFG rescale": options.rescale_cfg or None,
        "APG": options.apg,
        "PAG Scale": options.pag_scale or None,
        "FreeU": options.freeu,
    }
    if options.dynamic_threshold is not None:
        mimic, percentile = parse_threshold(options.dynamic_threshold)
        words |= {THRESHOLDING: True, MIMIC: mimic, PERCENTILE: percentile}
    return {key: _written(value) for key, value in words.items() if value is not None}


def _written(value: str | float | bool) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def read_sampling(parameters: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The same read back: fields of `GenerateOptions` by the key that says them; what makes no sense is not
    there."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in parameters.items():
        try:
            asked = READ[key](value, parameters) if key in READ else None
            if asked is not None:
                GenerateOptions("", **asked)  # refuses what is out of range
                found[key] = asked
        except (ValueError, UsageError):
            pass
    return found


def _field(name: str, kind: Callable[[str], Any]) -> Callable[[str, Mapping[str, str]], dict[str, Any]]:
    return lambda text, _: {name: kind(text)}


def _emphasis(text: str) -> str:
    return {theirs: ours for ours, theirs in EMPHASES.items()}.get(text, text.lower())


def _threshold(_: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Two numbers and a switch, of which each says all."""
    text = parameters.get(MIMIC, "")
    return {"dynamic_threshold": ",".join([text, *filter(None, [parameters.get(PERCENTILE)])])}


def _schedule(text: str, _: Mapping[str, str]) -> dict[str, Any] | None:
    return {"Default": {}, ZERO_SNR: {"zero_snr": True}}.get(text)


READ: Mapping[str, Callable[[str, Mapping[str, str]], dict[str, Any] | None]] = {
    "Emphasis": _field("emphasis", _emphasis),
    "Variation seed": lambda text, said: {
        "variation_seed": int(text),
        "variation_strength": float(said.get("Variation seed strength", "0")),
    },
    "Variation seed strength": _field("variation_strength", float),
    "Seed resize from": _field("seed_resize", str),
    "ENSD": _field("ensd", int),
    "Sigmas": _field("sigmas", str),
    "Prediction": _field("prediction", str),
    "Noise Schedule": _schedule,
    "CFG rescale": _field("rescale_cfg", float),
    "APG": _field("apg", str),
    "PAG Scale": _field("pag_scale", float),
    "FreeU": _field("freeu", str),
    THRESHOLDING: _threshold,
    MIMIC: _threshold,
    PERCENTILE: _threshold,
}
