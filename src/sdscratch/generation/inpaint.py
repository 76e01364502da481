"""How a request with a mask is carried out, and what models that inpaint or follow instructions are told.

Shapes: n pictures, c channels, h × w latent positions, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sdscratch.diffusion.conventions import convention_of
from sdscratch.diffusion.inpaint import Blended, Surroundings, soft_mask
from sdscratch.diffusion.samplers import Denoiser, NoiseSource
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.errors import UsageError
from sdscratch.generation.requests import Request
from sdscratch.generation.start import Encoder, Start, start_latent
from sdscratch.images import Repaint
from sdscratch.images.masks import latent_mask
from sdscratch.images.tensors import to_tensor

__all__ = ["Beginning", "begin"]


def unchanged(denoise: Denoiser) -> Denoiser:
    """A denoiser as it is."""
    return denoise


@dataclass(frozen=True, eq=False)
class Beginning:
    """What the denoising of n pictures begins from.

    Attributes:
        latent: [n, c, h, w] in σ-space.
        concat: [1|n, k, h, w], what stands beside it in networks that take more.
        keep: makes a denoiser one that keeps what lies outside the mask.
        kept: the same for the last latent.
    """

    latent: Tensor
    concat: Tensor | None = None
    keep: Callable[[Denoiser], Denoiser] = unchanged
    kept: Surroundings | None = None

    def ended(self, latent: Tensor) -> Tensor:
        """The last latent, its surroundings as they are in the picture."""
        return latent if self.kept is None else self.kept.around(latent)


def begin(
    request: Request,
    path: SigmaSchedule,
    whole: SigmaSchedule,
    count: int,
    draw: NoiseSource,
    encode: Encoder,
    given: Start | None = None,
    *,
    posterior: NoiseSource | None = None,
) -> Beginning:
    """Encode what a request holds, and put its noise upon it.

    Args:
        path: the noise levels to come.
        whole: all of them, at strength 1; the same without an init picture.
        count: n, how many pictures.
        draw: unit noise for all of them.
        posterior: unit noise of encoded pictures, where it is another: of varied noise the plain one.
        given: gives the latents to start from, in the place of the init picture's (a second pass).

    Raises:
        UsageError: a model that follows instructions has no picture to follow.
    """
    posterior = (posterior or draw) if encodes_with_noise(request) else None
    unet, init = encode.networks.files.config.unet, request.init
    if init is not None and init.repaint is not None and path.timesteps:
        return _Masked(request, init.repaint, path, whole, draw, encode, posterior).begin()
    picture = None if init is None else to_tensor(init.image)
    concat = None
    if unet.beside == "picture":
        if picture is None:
            raise UsageError(
                "this model changes a picture as it is told (InstructPix2Pix); give it one, with img2img"
            )
        concat = encode.mean(picture)
        from_noise = given is None and request.options.strength == 1.0 and encodes_with_noise(request)
        if from_noise and path.timesteps:
            return Beginning(draw() * whole.start_scale, concat)
    asked = given or (None if picture is None else partial(encode, picture))
    x = start_latent(path, count, draw, asked, posterior=posterior)
    if unet.beside == "mask" and path.timesteps:
        concat = all_painted(x, encode)
    return Beginning(x, concat)


def encodes_with_noise(request: Request) -> bool:
    """Whether encoded pictures take of the picture's own noise."""
    return convention_of(request.options.like).encodes_with_noise


def all_painted(x: Tensor, encode: Encoder) -> Tensor:
    """What an inpainting model is told of no mask: [1, 1+c, h, w], a mask of ones over grey."""
    side = encode.networks.files.config.autoencoder.downscale
    grey = encode(torch.zeros(1, 3, x.shape[2] * side, x.shape[3] * side), None)
    return torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1)


class _Masked:
    """The beginning of pictures with a mask.

    Noise is drawn in the order of diffusers' pipeline: of the picture's posterior, the sampling's, and of the
    masked picture's posterior, which it draws for every model.
    """

    def __init__(
        self,
        request: Request,
        plan: Repaint,
        path: SigmaSchedule,
        whole: SigmaSchedule,
        draw: NoiseSource,
        encode: Encoder,
        posterior: NoiseSource | None,
    ) -> None:
        self.options, self.plan = request.options, plan
        self.path, self.whole, self.encode = path, whole, encode
        self.draw = draw
        self.convention = convention_of(request.options.like)
        self.posterior = posterior
        self.unet = encode.networks.files.config.unet
        self.stepwise = self.convention.blending == "steps"
        # diffusers' way at strength 1; others keep the picture under all of the noise
        self.from_noise = self.stepwise and request.options.strength == 1.0

    def begin(self) -> Beginning:
        """All of it."""
        picture = to_tensor(self.plan.picture)
        told_alone = self.unet.beside == "mask" and self.stepwise  # diffusers leaves the rest to such models
        needed = not (told_alone and self.from_noise)
        if self.unet.beside == "mask":
            self.encode.ahead(*([picture] if needed else []), self._masked(picture))
        latent = self.encode(picture, self.posterior) if needed else None
        noise = self.draw()
        concat = self._beside(picture)
        if latent is None:
            return Beginning(noise * self.whole.start_scale, concat)
        x = noise * self.whole.start_scale if self.from_noise else self._start(latent, noise)
        return Beginning(x, concat) if told_alone else self._keeping(x, concat, latent, noise)

    def _start(self, latent: Tensor, noise: Tensor) -> Tensor:
        """The picture under noise, with what was asked for under the mask."""
        contents = {"noise": noise, "nothing": torch.zeros_like(noise)}
        content = contents.get(self.options.masked_content)
        if content is not None:
            latent = Surroundings(self._mask(self.convention.latent_mask, noise), latent, noise).around(
                content
            )
        return latent * self.path.init_scale + noise * self.path.start_scale

    def _beside(self, picture: Tensor) -> Tensor | None:
        """[1|n, k, h, w] of models that take more than the latent."""
        if self.unet.beside == "picture":
            return self.encode.mean(picture)
        if self.unet.beside != "mask":
            if self.stepwise and self.posterior is not None:
                self.posterior()  # drawn all the same, and what is drawn later is other noise
            return None
        masked = self.encode(self._masked(picture), self.posterior)
        sharp = Image.fromarray(self._painted().astype(np.uint8) * 255)
        mask = torch.from_numpy(latent_mask(sharp, (masked.shape[3], masked.shape[2]), "nearest"))
        return torch.cat([mask.to(masked).expand(masked.shape[0], 1, -1, -1), masked], dim=1)

    def _painted(self) -> npt.NDArray[np.bool_]:
        """[H, W], what an inpainting model is to paint."""
        levels = np.asarray(self.plan.drawn_mask)
        return levels > 0 if self.options.soft_mask else levels >= 128

    def _masked(self, picture: Tensor) -> Tensor:
        """The picture [1, 3, H, W] without that: grey, which is 0 of −1 to 1."""
        return picture * torch.from_numpy(~self._painted())

    def _keeping(self, x: Tensor, concat: Tensor | None, latent: Tensor, noise: Tensor) -> Beginning:
        """With what lies outside the mask kept; a soft mask's as differential diffusion has it."""
        if not self.options.soft_mask:
            kept = Surroundings(self._mask(self.convention.latent_mask, noise), latent, noise)
            return Beginning(x, concat, lambda one: Blended(one, kept, self.convention.blending), kept)
        soft = self._mask("bilinear" if self.convention.latent_mask == "bilinear" else "bicubic", noise)
        ever = Surroundings((soft > 0.0).to(soft), latent, noise)
        return Beginning(x, concat, lambda one: Blended(one, ever, "both", soft_mask(soft, self.path)), ever)

    def _mask(self, way: str, like: Tensor) -> Tensor:
        """[1, 1, h, w] of the latent's size, reduced in that way."""
        reduced = latent_mask(self.plan.drawn_mask, (like.shape[3], like.shape[2]), way)
        return torch.from_numpy(reduced)[None, None].to(like)
