"""What is done to guidance besides its scale; all of it is off by default."""

from __future__ import annotations

from dataclasses import dataclass

from sdscratch.checks import parse_apg, parse_freeu, parse_threshold
from sdscratch.options.fields import GUIDANCE, asked

__all__ = ["GuidanceOptions"]


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions:
    """The panel Guidance."""

    rescale_cfg: float = asked(
        0.0,
        "Share in which a guided prediction's spread is drawn back to the prompt's own, 0 to 1; 0.7 is usual "
        "with --zero-snr (Lin et al. 2023).",
        GUIDANCE,
        off=True,
        low=0,
        high=1,
    )
    dynamic_threshold: str | None = asked(
        None,
        "Guidance scale whose range of values is kept, and the percentile that lies within it, like 7 or "
        "7,99.5: for a high --cfg-scale (dynamic thresholding; Saharia et al. 2022).",
        GUIDANCE,
        metavar="SCALE[,PERCENTILE]",
        default="off",
        check=parse_threshold,
        off=True,
    )
    apg: str | None = asked(
        None,
        "Adaptive projected guidance, which keeps colours calm: the share of what lies along the picture, a "
        "momentum, and the most length of a change, like 0 or 0,-0.5,15 (Sadat et al. 2024).",
        GUIDANCE,
        metavar="ETA[,MOMENTUM[,LENGTH]]",
        default="off",
        check=parse_apg,
        off=True,
    )
    pag_scale: float = asked(
        0.0,
        "Pull away from what the U-Net says with perturbed attention; 3 is usual, 0 is off. A step takes "
        "half as long again (Ahn et al. 2024).",
        GUIDANCE,
        aliases=("--pag",),
        off=True,
        low=0,
        high=100,
    )
    freeu: str | None = asked(
        None,
        "Factors of the U-Net's features and skips, FreeU's second version; 1.5,1.6,0.9,0.2 for SD 1.5 "
        "(Si et al. 2023).",
        GUIDANCE,
        metavar="B1,B2,S1,S2",
        default="off",
        check=parse_freeu,
        off=True,
    )
