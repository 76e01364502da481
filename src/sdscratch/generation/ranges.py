"""LoRAs that act at some of the sampling's steps only: the U-Net at each step with those that are active.

Whatever else draws sees a network whose weights follow the steps. Only one U-Net is ever in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import Tensor

from sdscratch.addons.apply import AppliedLora, applied_loras, at_step
from sdscratch.checkpoints.network_file import PartFile
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.errors import UsageError
from sdscratch.generation.networks import Networks

__all__ = ["LoraSteps", "check_ranges", "turn_to"]

log = logging.getLogger(__name__)


def check_ranges(loras: tuple[AppliedLora, ...], sampler: str) -> None:
    """
    Raises:
        UsageError: a LoRA is asked for at some steps only, and the sampler's steps are not known beforehand.
    """
    for lora in loras:
        if not lora.request.always and SAMPLERS[sampler].denoisings == "adaptive":
            raise UsageError(
                f"the LoRA {lora.name} has start= or stop=, but {sampler} chooses its steps as it goes; "
                "choose another sampler, or leave them out"
            )


class LoraSteps:
    """The U-Net's weights as they follow the steps of one sampling.

    Args:
        networks: whose U-Net it is.
        sampler: a name of `catalogue.SAMPLERS`.

    Attributes:
        done: how many steps the sampler has done; whoever runs it says so after each.

    Raises:
        UsageError: as of `check_ranges`.
    """

    def __init__(self, networks: Networks, sampler: str) -> None:
        loras = applied_loras(networks.files)
        check_ranges(loras, sampler)
        self.networks = networks
        self.done = 0
        self._follow = not all(lora.request.always for lora in loras)
        # Multistep samplers ask once a step, some of them ahead of its beginning (UniPC).
        spec = SAMPLERS[sampler]
        self._by_evaluation = spec.denoisings == "n" and spec.steps(9) == 9
        self._evaluations = 0
        turn_to(networks, 0)

    def followed(self, denoise: Denoiser) -> Denoiser:
        """A denoiser before each of whose evaluations the weights are those of its step."""
        return Followed(denoise, self._before) if self._follow else denoise

    def _before(self) -> None:
        turn_to(self.networks, self._evaluations if self._by_evaluation else self.done)
        self._evaluations += 1


def turn_to(networks: Networks, step: int) -> None:
    """Give the U-Net the weights that it has at a step, from 0."""
    current = networks.varied("unet") or networks.files
    wanted = at_step(networks.files, step)
    if wanted.changes == current.changes:
        return
    turned = [
        lora
        for lora in applied_loras(networks.files)
        if (lora in wanted.changes) is not (lora in current.changes)
    ]
    log.info("from step %d on: other LoRAs (%s)", step + 1, ", ".join(lora.name for lora in turned))
    touched = {weight for lora in turned for weight in lora.lora.modules if weight.part == "unet"}
    networks.vary("unet", None if wanted is networks.files else PartFile(wanted, "unet"), touched)


class Followed:
    """A denoiser before which something is done each time."""

    def __init__(self, denoise: Denoiser, before: Callable[[], None]) -> None:
        self._denoise, self._before = denoise, before
        unconditional = getattr(denoise, "unconditional", None)
        if unconditional is not None:  # samplers look whether it is there
            self.unconditional = unconditional

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimate of x₀."""
        self._before()
        return self._denoise(x, sigma)
