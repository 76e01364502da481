"""What options say of guidance: how predictions become one, and what the U-Net does otherwise meanwhile."""

from __future__ import annotations

from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checks import parse_apg, parse_freeu, parse_threshold
from sdscratch.diffusion.conventions import convention_of
from sdscratch.diffusion.guidance import Combine, Guidance, Prediction, classifier_free
from sdscratch.diffusion.tricks import adaptive_projected, dynamically_thresholded
from sdscratch.models.altered import Alteration, FreeUFactors
from sdscratch.options import ResolvedOptions

__all__ = ["alteration_of", "guidance_of", "prediction_of"]


def prediction_of(options: ResolvedOptions, files: ModelFiles) -> Prediction:
    """What the network predicts: as asked for, else as its model says."""
    said: Prediction | None = options.prediction  # type: ignore[assignment]  # its choices are these
    return files.config.schedule.prediction if said is None else said


def alteration_of(options: ResolvedOptions) -> Alteration:
    """What the U-Net does otherwise at every step."""
    return Alteration(None if options.freeu is None else FreeUFactors(*parse_freeu(options.freeu)))


def guidance_of(options: ResolvedOptions, scale: float) -> Guidance:
    """How predictions become one; for one picture or batch, since some ways remember the steps before.

    Args:
        scale: of the guidance between two predictions: 1 where the network is told it instead.
    """
    combine: Combine = classifier_free(scale)
    if options.apg is not None:
        eta, momentum, length = parse_apg(options.apg)
        combine = adaptive_projected(scale, eta=eta, momentum=momentum, norm_threshold=length)
    elif options.dynamic_threshold is not None:
        mimic, percentile = parse_threshold(options.dynamic_threshold)
        combine = dynamically_thresholded(scale, mimic, percentile / 100.0)
    return Guidance(
        combine,
        on_estimates=options.apg is not None or options.dynamic_threshold is not None,
        perturbed=options.pag_scale,
        rescale=options.rescale_cfg,
        rescale_as="v" if convention_of(options.like).rescales == "velocity" else None,
    )
