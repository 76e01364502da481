"""What is faster, and not quite the same picture."""

from __future__ import annotations

from dataclasses import dataclass

from sdscratch.checks import parse_interval
from sdscratch.options.fields import APPROXIMATIONS, asked

__all__ = ["ApproximationOptions"]


@dataclass(frozen=True, kw_only=True)
class ApproximationOptions:
    """The panel of approximations."""

    cfg_interval: str | None = asked(
        None,
        "Noise levels σ between which there is guidance, like 0.28:5.42 (SD 1.x begins at 14.6).",
        APPROXIMATIONS,
        metavar="FROM:TO",
        default="everywhere",
        check=parse_interval,
        off=True,
    )
    deep_cache: int = asked(
        1,
        "Interval of steps at which the deep part of the U-Net runs; 1 is exact.",
        APPROXIMATIONS,
        metavar="N",
        off=True,
        low=1,
        high=100,
    )
    decoder: str = asked(
        "full",
        "Decoder that makes the picture: full, the model's own, or tiny, the tiny autoencoder (--taesd), "
        "many times faster; an encoder in its file then encodes INIT.",
        APPROXIMATIONS,
        choices=("full", "tiny"),
        off=True,
    )
