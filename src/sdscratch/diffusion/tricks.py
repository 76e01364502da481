"""What else is done to guided predictions, each off by default.

Each makes a `Combine` for `guided`; those that act on estimates of x₀ (`on_estimates`) say so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdscratch.diffusion.guidance import Combine
from sdscratch.hardware import widest

TINY = 1e-12  # a channel without any range has no bounds to divide by

__all__ = ["adaptive_projected", "dynamically_thresholded"]


def dynamically_thresholded(scale: float, mimic_scale: float, percentile: float = 1.0) -> Combine:
    """Guidance with the range of values that a lower scale would have (on estimates of x₀).

    Saharia et al. 2022 (section 2.3) clip pixels at a percentile and divide by it; latents have no such
    bounds, so that here each channel, without its mean, gets the bounds of the lower scale (A. Goodwin's
    sd-dynamic-thresholding).

    Args:
        scale: of the guidance.
        mimic_scale: the scale whose range is kept.
        percentile: how much of the values, 0 to 1, lies within the bounds that are scaled.
    """

    def combine(without: Tensor, with_prompt: Tensor, sigma: float) -> Tensor:
        pull = with_prompt - without
        mean, far = centred(without + scale * pull)
        _, near = centred(without + mimic_scale * pull)
        wanted = near.abs().amax(2, keepdim=True)
        bound = torch.maximum(torch.quantile(far.abs(), percentile, dim=2, keepdim=True), wanted).clamp_min(
            TINY
        )
        return (far.clamp(-bound, bound) / bound * wanted + mean).reshape_as(without)

    return combine


def centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's mean [n, c, 1], and the rest [n, c, h·w]."""
    flat = x.flatten(2)
    mean = flat.mean(2, keepdim=True)
    return mean, flat - mean


def adaptive_projected(
    scale: float, *, eta: float = 0.0, momentum: float = -0.5, norm_threshold: float = 0.0
) -> Combine:
    """Adaptive projected guidance (Sadat et al. 2024, algorithm 1), on estimates of x₀.

    What the prompt changes is averaged over the steps, bounded, and its part along the estimate itself, which
    makes colours too strong, left out. It remembers: one picture or batch, one `Combine`.

    Args:
        scale: of the guidance.
        eta: how much of the parallel part is kept.
        momentum: β of the running average; 0 none, negative pushes away from it.
        norm_threshold: r, the most that the change may be long; 0 no bound.
    """
    average: Tensor | None = None

    def combine(without: Tensor, with_prompt: Tensor, sigma: float) -> Tensor:
        nonlocal average
        change = with_prompt - without
        if average is not None and average.shape == change.shape:
            change = change + momentum * average
        average = change
        dims = tuple(range(1, change.ndim))
        if norm_threshold > 0.0:
            length = torch.linalg.vector_norm(change, dim=dims, keepdim=True)
            change = change * torch.clamp(norm_threshold / length, max=1.0)
        exact = with_prompt.to(widest(with_prompt.device)).flatten(1)
        along = torch.nn.functional.normalize(exact, dim=1).reshape_as(change)
        parallel = (change * along).sum(dims, keepdim=True) * along
        orthogonal = change - parallel
        return with_prompt + (scale - 1.0) * (orthogonal + eta * parallel).to(with_prompt)

    return combine
