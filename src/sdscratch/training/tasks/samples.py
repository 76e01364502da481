"""Sample grids: pictures drawn by networks that are in memory, to see how far a training is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from sdscratch.diffusion.guidance import guided
from sdscratch.diffusion.noise import Noise
from sdscratch.diffusion.sample import sample_to_end
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.files import atomic_write
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ModelConfig
from sdscratch.models.control import Control
from sdscratch.options import Defaults
from sdscratch.training.engine.distributed import DistributedContext

__all__ = ["SampleGrid", "save_grid"]


@dataclass(frozen=True)
class SampleGrid:
    """What it takes to draw with a model's own defaults, besides the networks that are trained.

    Args:
        encode: a prompt → its context [1, t, d].
        decoder: gives the autoencoder's second half; asked for once a grid, and let go of.
    """

    config: ModelConfig
    defaults: Defaults
    encode: Callable[[str], Tensor]
    decoder: Callable[[], nn.Module]
    distributed: DistributedContext

    @torch.no_grad()
    def draw(
        self, unet: nn.Module, prompts: Sequence[str], seed: int, controls: Sequence[Control] = ()
    ) -> Tensor:
        """A picture of each prompt with the same seed; [n, 3, H, W] float32 on the CPU.

        Args:
            controls: none, or one for each prompt.
        """
        with self.distributed.autocast():
            latents = list(self._latents(unet, prompts, seed, controls))
            decoder = self.decoder()
            scale = self.config.autoencoder.latent_scale
            return torch.cat([decoder(latent / scale).float().cpu() for latent in latents])

    def _latents(
        self, unet: nn.Module, prompts: Sequence[str], seed: int, controls: Sequence[Control]
    ) -> Iterator[Tensor]:
        defaults, device = self.defaults, self.distributed.device
        schedule = Schedule(self.config.schedule)
        steps = min(defaults.steps, len(schedule))
        path = make_sigma_schedule(schedule, defaults.sampler, defaults.scheduler, steps)
        downscale = self.config.autoencoder.downscale
        sides = (defaults.height // downscale, defaults.width // downscale)
        negative = self.encode("")
        for index, prompt in enumerate(prompts):
            steering = tuple(controls[index : index + 1])
            source = Noise([seed], (self.config.unet.latent_channels, *sides))

            def noise(
                sigma: float | None = None, next_sigma: float | None = None, source: Noise = source
            ) -> Tensor:
                return source(sigma, next_sigma).to(device)

            denoise = guided(
                lambda x, timesteps, told: unet(x, timesteps, told).float(),
                path,
                self.config.schedule.prediction,
                prompt=Conditioning(self.encode(prompt), controls=steering),
                negative=Conditioning(negative, controls=steering),
                scale=defaults.cfg_scale,
            )
            x = noise() * path.start_scale
            yield sample_to_end(defaults.sampler, denoise, x, path, noise)


def save_grid(pictures: Tensor, path: Path, columns: int) -> None:
    """Write [n, 3, H, W] in −1 to 1 as one PNG, row by row.

    Raises:
        SdscratchError: the operating system refuses.
    """
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    blank = torch.ones(rows * columns - n, 3, height, width)
    levels = ((torch.cat([pictures.float().cpu(), blank]).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    table = levels.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    grid = Image.fromarray(table.reshape(rows * height, columns * width, 3).numpy())
    with atomic_write(path, overwrite=True) as file:
        grid.save(file, "PNG")
