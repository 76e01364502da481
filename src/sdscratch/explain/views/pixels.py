"""From latent to pixels: the decoder's levels; of image-to-image, the encoder's posterior and strength."""

from __future__ import annotations

from typing import Any

import torch

from sdscratch.explain.capture import Run
from sdscratch.explain.charts import number
from sdscratch.explain.inline import grey, one_sided, photo, tiles, two_sided
from sdscratch.explain.views.frames import pooled
from sdscratch.explain.views.levels import SHOWN_LATENT
from sdscratch.models.config import AutoencoderConfig

__all__ = ["pixels_view"]

TITLES = {"conv_in": "into the decoder's channels", "middle": "the middle: blocks and self-attention"}


def pixels_view(run: Run, config: AutoencoderConfig) -> dict[str, Any]:
    """What the stage shows."""
    return {
        "latent": latent_view(run),
        "levels": [
            {
                "name": name,
                "title": TITLES.get(name, ""),
                "shape": output.shape,
                "rms": number(output.rms),
                "image": grey(
                    tiles(two_sided(output.maps, peak(output.maps)), columns=min(2, len(output.maps)))
                ),
            }
            for name, output in run.decoder.levels.items()
        ],
        "passes": run.decoder.passes,
        "scale": number(config.latent_scale, 5),
        "init": init_view(run, config),
    }


def peak(maps: torch.Tensor) -> float:
    """What counts as the most of some maps: nearly all lies below."""
    return float(maps.abs().flatten().quantile(0.995))


def latent_view(run: Run) -> dict[str, Any] | None:
    """What the decoder was given."""
    if run.end is None:
        return None
    return {
        "image": grey(tiles(two_sided(pooled(run.end, SHOWN_LATENT), 3.0))),
        "shape": tuple(run.end.shape),
        "rms": number(float(run.end.square().mean().sqrt())),
    }


def init_view(run: Run, config: AutoencoderConfig) -> dict[str, Any] | None:
    """The picture to start from, its posterior, and where strength enters; None of text-to-image."""
    init, path = run.request.init, run.path
    if init is None or path is None or run.encoder.mean is None or run.encoder.log_variance is None:
        return None
    mean = run.encoder.mean * config.latent_scale
    deviation = torch.exp(0.5 * run.encoder.log_variance) * config.latent_scale
    ran, asked = len(path.timesteps), run.request.options.steps
    most = max(float(deviation.max()), 1e-12)
    return {
        "photo": photo(init.image),
        "mean": grey(tiles(two_sided(pooled(mean, SHOWN_LATENT), 3.0))),
        "deviation": grey(tiles(one_sided(pooled(deviation, SHOWN_LATENT), most), background=0)),
        "mean-rms": number(float(mean.square().mean().sqrt())),
        "deviation-mean": number(float(deviation.mean())),
        "most": number(most),
        "shape": tuple(mean.shape),
        "strength": number(run.request.options.strength),
        "ran": ran,
        "asked": asked,
        "skipped": max(0, asked - ran),
        "sigma": number(path.sigmas[0], 4) if ran else None,
        "scale": number(path.init_scale, 4),
    }
