"""Training steps run on the stand-in for a GPU; only metrics and checkpoints come from the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sdscratch.checkpoints.model import open_model
from sdscratch.models.config import TinyDecoderConfig
from sdscratch.models.taesd import TinyDecoder
from sdscratch.models.vae import Decoder, Encoder
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.gradient_checkpointing import recompute_blocks
from sdscratch.training.engine.loop import train
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.engine.step import Loss
from sdscratch.training.run.lora_options import TARGETS, LoraPlan
from sdscratch.training.tasks.adversarial import AdversarialAutoencoder, AdversarialLoss, Discriminator
from sdscratch.training.tasks.autoencoder import Autoencoder, ReconstructionLoss, held_out_psnr
from sdscratch.training.tasks.diffusion import DenoisingLoss, Diffusion, tokenized
from sdscratch.training.tasks.latents import FreshLatents, ReplayLatents, encode_with
from sdscratch.training.tasks.lora import lora_module
from sdscratch.training.tasks.taesd import DistillationLoss
from support.checkpoints import SMALLER, ldm_tensors, self_contained, tiny_tokenizer, write_ldm
from support.standin import GPU, StandIn, standing_in
from support.training import Squares

ON_GPU = DistributedContext(GPU)
CONFIG = SMALLER.autoencoder
WRITTEN = {("training/engine/metrics.py", "flush"), ("training/engine/state.py", "read")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return write_ldm(folder / "small.safetensors", ldm_tensors(SMALLER), self_contained(SMALLER))


@pytest.fixture(params=["cuda", "mps"])
def gpu(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with standing_in(request.param) as mode:
        yield mode


def pictures() -> Squares:
    return Squares(size=16)


def encoder() -> Callable[[Tensor], Tensor]:
    return encode_with(Encoder(CONFIG).to(GPU).requires_grad_(False), 0.5, ON_GPU)


def reconstruction() -> ReconstructionLoss:
    return ReconstructionLoss(pictures(), CONFIG, ON_GPU, size=4, seed=1)


def denoising(words: Callable[..., Tensor], fresh: bool = True) -> DenoisingLoss:
    latents = (
        FreshLatents(pictures(), encoder(), GPU)
        if fresh
        else ReplayLatents(pictures(), encoder(), GPU, seed=1)
    )
    return DenoisingLoss(
        SMALLER.schedule, words, latents, ON_GPU, size=4, seed=1, late_bias=0.8, snr_gamma=5.0
    )


def autoencoder(model: Path) -> tuple[nn.Module, Loss]:
    return Autoencoder(CONFIG).to(GPU), reconstruction()


def adversarial(model: Path) -> tuple[nn.Module, Loss]:
    module = AdversarialAutoencoder(Autoencoder(CONFIG), Discriminator(channels=8))
    return module.to(GPU), AdversarialLoss(reconstruction(), 0.5)


def diffusion(model: Path) -> tuple[nn.Module, Loss]:
    module = Diffusion.from_config(SMALLER).to(GPU)
    return module, denoising(tokenized(tiny_tokenizer(), GPU), fresh=False)


def lora(model: Path) -> tuple[nn.Module, Loss]:
    plan = LoraPlan(rank=2, targets=tuple(TARGETS), text_encoder=True)
    module, _ = lora_module(open_model(model), plan, ON_GPU, seed=1)
    recompute_blocks(module)
    return module, denoising(tokenized(tiny_tokenizer(), GPU))


def taesd(model: Path) -> tuple[nn.Module, Loss]:
    decoder = Decoder(CONFIG).to(GPU).requires_grad_(False)
    latents = FreshLatents(pictures(), encoder(), GPU)
    tiny = TinyDecoder(TinyDecoderConfig(4, 8, (1, 1, 1))).to(GPU)
    return tiny, DistillationLoss(latents, decoder, ON_GPU)


@pytest.mark.parametrize("task", [autoencoder, adversarial, diffusion, lora, taesd])
def test_a_run_waits_for_the_device_only_to_write(
    task: Callable[[Path], tuple[nn.Module, Loss]], model: Path, gpu: StandIn, tmp_path: Path
) -> None:
    module, loss = task(model)
    gpu.reads.clear()
    plan = Recipe(Budget(steps=2), 1e-3, batch=4, accumulate=2, warm_up=1, ema=0.9)
    assert train(module, loss, plan, tmp_path, ON_GPU) == 2
    assert set(gpu.reads) == WRITTEN
    assert gpu.reads["training/engine/metrics.py", "flush"] == 1
    assert gpu.seen["convolution_backward"] > 0


def test_an_autoencoder_is_measured(gpu: StandIn) -> None:
    held_out_psnr(pictures(), Autoencoder(CONFIG).to(GPU), GPU, 2)
    assert set(gpu.reads) == {("training/tasks/autoencoder.py", "held_out_psnr")}
    assert torch.is_grad_enabled()
