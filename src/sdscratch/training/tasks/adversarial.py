"""An adversarial term for the autoencoder: a discriminator of patches (Isola et al. 2017; Esser et al. 2021).

The discriminator learns to tell pictures from reconstructions, and the autoencoder to be taken for the
picture. Both descend in one backward pass: what teaches the discriminator takes the reconstruction as given,
and what teaches the autoencoder takes the discriminator as given. So the discriminator is a part of the
module that is trained: its weights and its optimiser's moments are in every checkpoint, and processes share
its gradients, like all the others. Checkpoints and metrics know it as `critic`.

Begin with it when reconstructions are good already (`train autoencoder --model`): before, it only disturbs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from sdscratch.models.vae import Gaussian
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.tasks.autoencoder import Autoencoder, ReconstructionLoss

__all__ = [
    "AdversarialAutoencoder",
    "AdversarialLoss",
    "Discriminator",
    "Scores",
    "adaptive_weight",
    "discriminator_loss",
]

CHANNELS = 64
STEPS_DOWN = 3  # each score then sees 70 × 70 pixels (Isola et al. 2017, section 6.1.2)
LARGEST_WEIGHT = 1e4
DELTA = 1e-6  # Esser et al. 2021, below eq. 7


class Discriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, appendix 6.1.2), with group instead of batch normalisation.

    A score must not depend on what else is in the batch, nor on how many processes share it.
    """

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(STEPS_DOWN + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level, (inputs, outputs) in enumerate(pairwise(widths), 1):
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride=2 if level < STEPS_DOWN else 1, padding=1, bias=False),
                nn.GroupNorm(outputs // 16, outputs),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)  # Isola et al. 2017, appendix 6.2

    def forward(self, picture: Tensor) -> Tensor:
        """[n, 3, H, W] in −1 to 1 → a score for each patch [n, 1, h, w]; high means a picture."""
        return self.layers(picture)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Scores:
    """The discriminator's scores; float32."""

    generated: Tensor  # of the reconstruction; its gradient is the autoencoder's
    fake: Tensor  # the same; its gradient is the discriminator's
    real: Tensor  # of the picture


class AdversarialAutoencoder(nn.Module):
    """An autoencoder with its discriminator, trained as one."""

    def __init__(self, autoencoder: Autoencoder, discriminator: Discriminator) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.critic = discriminator  # its name in checkpoints

    def forward(self, picture: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Gaussian, Scores]:
        """What `Autoencoder` gives, and the scores of it."""
        output, posterior = self.autoencoder(picture, noise)
        weights = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        generated = functional_call(self.critic, weights, (output,))
        fake, real = self.critic(torch.cat([output.detach(), picture])).chunk(2)
        return output, posterior, Scores(generated.float(), fake.float(), real.float())


def discriminator_loss(scores: Scores) -> Tensor:
    """The hinge loss, ½·(max(0, 1 − real) + max(0, 1 + fake)) (Lim & Ye 2017; Esser et al. 2021)."""
    return 0.5 * (F.relu(1.0 - scores.real).mean() + F.relu(1.0 + scores.fake).mean())


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, last: Tensor, distributed: DistributedContext
) -> Tensor:
    """λ = ‖∇ reconstruction‖ / (‖∇ adversarial‖ + δ), at the decoder's last layer (Esser et al. 2021, eq. 7).

    Both terms then pull equally hard, however the one's scale changes. The gradients are those of all
    processes' pictures.
    """
    norms = []
    for term in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(term, last, retain_graph=True)
        norms.append(distributed.mean(gradient).norm())
    balance: Tensor = norms[0] / (norms[1] + DELTA)
    return balance.clamp(max=LARGEST_WEIGHT)


class AdversarialLoss:
    """The mean loss at some indices of a step's batch: a `Loss`.

    Args:
        reconstruction: the terms beside it.
        weight: of the adversarial term, where 1 makes it pull as hard as the others together.
    """

    def __init__(self, reconstruction: ReconstructionLoss, weight: float) -> None:
        self.reconstruction, self.weight = reconstruction, weight

    def __call__(self, module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        """The loss of `module`, an `AdversarialAutoencoder` or what is called like one."""
        distributed = self.reconstruction.distributed
        picture, noise = self.reconstruction.inputs(step, indices)
        with distributed.autocast():
            output, posterior, scores = module(picture, noise)
        value, metrics = self.reconstruction.of(output, posterior, picture)
        adversarial, critic = -scores.generated.mean(), discriminator_loss(scores)
        balance = adaptive_weight(value, adversarial, _last_layer(module), distributed)
        total = value + self.weight * balance * adversarial + critic
        about = {"adversarial": adversarial.detach(), "critic": critic.detach(), "balance": balance}
        return total, {**metrics, **about}


def _last_layer(module: nn.Module) -> Tensor:
    own = module.module if isinstance(module, DistributedDataParallel) else module
    assert isinstance(own, AdversarialAutoencoder)
    return own.autoencoder.decoder.conv_out.weight
