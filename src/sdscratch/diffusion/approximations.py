"""What makes pictures faster, and a little different: options that say so, off by default."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sdscratch.diffusion.guidance import Network
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.models.conditioning import Conditioning

__all__ = ["DeepNetwork", "deep_cached", "guided_between"]

# (x, timesteps, conditioning as of a `Network`, deep features or None) → prediction, deep features
DeepNetwork = Callable[[Tensor, Tensor, Conditioning, Tensor | None], tuple[Tensor, ...]]


def guided_between(low: float, high: float, guided: Denoiser, plain: Denoiser) -> Denoiser:
    """Guidance at the noise levels low < σ ≤ high alone (Kynkäänniemi et al. 2024, eq. 6).

    Elsewhere `plain` sees the prompt without guidance, at half the cost.
    """
    return lambda x, sigma: guided(x, sigma) if low < sigma <= high else plain(x, sigma)


def deep_cached(network: DeepNetwork, every: int) -> Network:
    """A network of which every N-th pass alone is a whole one (DeepCache; Ma et al. 2023, section 3.3).

    The passes between take the deep features of the last whole one, for these change slowly from step to
    step. What is kept belongs to one picture, or to one batch: a pass on another number of pictures (guidance
    that begins or ends) is a whole one.

    Args:
        every: 1 or more; 1 is exact.
    """
    kept: Tensor | None = None
    age = 0

    def predict(x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        nonlocal kept, age
        reused = kept if kept is not None and age < every and kept.shape[0] == x.shape[0] else None
        age = 1 if reused is None else age + 1
        prediction, kept = network(x, timesteps, conditioning, reused)
        return prediction

    return predict
