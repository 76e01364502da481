"""The stages in which the built-in model is made: autoencoder, decoder, text encoder and U-Net, tiny decoder.

Each goes on where it was stopped; what they keep and hand on lies in one folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from sdscratch.device import choose
from sdscratch.errors import UsageError
from sdscratch.hardware import device_kind
from sdscratch.models.config import ModelConfig
from sdscratch.models.taesd import TinyDecoder
from sdscratch.pictograms import model as embedded
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.crisp import DISCRIMINATOR_CHANNELS, CrispLoss, DecoderWithDiscriminator
from sdscratch.pictograms.folder import (
    AUTOENCODER,
    DATA,
    HARD_EXAMPLES,
    MADE_BY,
    TAESD,
    TOKENIZER,
    trained_diffusion,
)
from sdscratch.pictograms.grow import grow_autoencoder, grow_diffusion, kept_meaning
from sdscratch.pictograms.hard_examples import kept_weights, unexplained_variance
from sdscratch.pictograms.mixtures import CPU, FULL
from sdscratch.pictograms.model import Shape
from sdscratch.pictograms.pictograms import load_sprites
from sdscratch.pictograms.sampled import Redraw, SampledLatents, redrawing
from sdscratch.training.engine.distributed import DistributedContext, joined
from sdscratch.training.engine.loop import Validate, train
from sdscratch.training.engine.recipe import Recipe
from sdscratch.training.engine.rng import generator
from sdscratch.training.engine.step import Loss
from sdscratch.training.run.display import Display
from sdscratch.training.tasks.adversarial import Discriminator
from sdscratch.training.tasks.autoencoder import (
    LOSS_WEIGHTS,
    TERMS,
    Autoencoder,
    ReconstructionLoss,
    Term,
    fold_normalisation,
    held_out_psnr,
    latent_statistics,
)
from sdscratch.training.tasks.diffusion import DenoisingLoss, Diffusion, Words, tokenized
from sdscratch.training.tasks.latents import Encode, FreshLatents, ReplayLatents, encode_with
from sdscratch.training.tasks.samples import save_grid
from sdscratch.training.tasks.taesd import DistillationLoss, save_taesd, tiny_config

__all__ = ["MIXTURES", "Stages", "prepared"]

LATE_BIAS = 0.6  # late timesteps come more often: see `stratified_timesteps`
TAESD_CHANNELS = 16  # a quarter of the decoder's time
# Of the decoder's loss, when it alone is trained: squares count most, as they do in PSNR. The other terms see
# to it that edges stay sharp.
REFINED = {"l1": 0.5, "l2": 8.0, "gradient": 0.5}
PREVIEWED_STEPS = 10  # of 20 left
KEPT_MEANING = 0.2  # weight of old latent channels staying what they were, while the autoencoder is grown

MIXTURES = {"some": CPU, "all": FULL}


@dataclass(frozen=True)
class Stages:
    """What every stage needs: a folder, the model's shape, pictures, a machine."""

    folder: Path
    shape: Shape
    composer: Composer
    distributed: DistributedContext

    def autoencoder(self, recipe: Recipe, grow: Path | None = None) -> float:
        """Train the autoencoder, normalise its latents, keep it; its PSNR on held-out pictures, in dB.

        Args:
            grow: a model one size smaller to begin with, whose latent channels keep their meaning.
        """
        torch.manual_seed(recipe.seed)
        model = Autoencoder(self.shape.autoencoder)
        terms, weights, kept = dict(TERMS), dict(LOSS_WEIGHTS), 0
        if grow is not None:
            small, _, _ = embedded.open_trained(grow)
            grow_autoencoder(small, model)
            small.to(self.distributed.device).requires_grad_(False)
            kept = small.config.latent_channels
            terms["meaning"], weights["meaning"] = kept_meaning(small.encoder), KEPT_MEANING
        model.to(self.distributed.device)
        self._train_autoencoder(model, recipe, "autoencoder", terms, weights)
        mean, std = latent_statistics(self.composer, model.encoder, self.distributed.device)
        mean[:kept], std[:kept] = 0.0, 1.0
        fold_normalisation(model, mean, std)
        return self._keep(model)

    def refine(self, recipe: Recipe) -> float:
        """Train the decoder further while the encoder, and with it what latents mean, stays as it is."""
        model, _ = self._kept()
        model.to(self.distributed.device).decoder.requires_grad_(True)
        self._train_autoencoder(model, recipe, "decoder", TERMS, REFINED)
        return self._keep(model)

    def diffusion(self, recipe: Recipe, grow: Path | None = None) -> None:
        """Train text encoder and U-Net; at every checkpoint the model so far is `preview.safetensors`.

        Args:
            grow: a model whose text encoder and U-Net a new run begins with: a smaller one, or one of the
                same size, and then what that one knows least is shown most.
        """
        distributed, shape = self.distributed, self.shape
        autoencoder, metrics = self._kept()
        # its words are those of all scenes, whichever are drawn now
        everything = Composer(self.composer.table, shape.size, FULL)
        tokenizer = embedded.keep_tokenizer(self.folder / TOKENIZER, everything)
        config = embedded.model_config(tokenizer, shape)
        torch.manual_seed(recipe.seed)
        model = Diffusion.from_config(config)
        same_size = False
        if grow is not None:
            begun, known, known_words = embedded.open_trained(grow)
            grow_diffusion(known, model, known_words, tokenizer)
            same_size = begun.config == autoencoder.config
        model.to(distributed.device)
        encoder = autoencoder.encoder.to(distributed.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        encode = encode_with(encoder, config.autoencoder.latent_scale, distributed)
        words = tokenized(tokenizer, distributed.device)
        composer = self._weighted(model, config, encode, words) if same_size else self.composer
        latents = (
            ReplayLatents(composer, encode, distributed.device, recipe.seed)
            if device_kind(distributed.device) == "cpu"
            else FreshLatents(composer, encode, distributed.device)
        )
        loss = DenoisingLoss(
            config.schedule,
            words,
            latents,
            distributed,
            size=recipe.size(distributed.processes),
            seed=recipe.seed,
            late_bias=LATE_BIAS,
        )

        def preview(step: int) -> None:
            provenance = {"steps": step, "samples": step * loss.size, **metrics}
            path = self.folder / "preview.safetensors"
            embedded.save_embedded(path, shape, autoencoder, model, tokenizer, provenance)

        self._train(model, loss, recipe, "diffusion", preview)

    def _weighted(self, model: Diffusion, config: ModelConfig, encode: Encode, words: Words) -> Composer:
        """The composer of a run that goes on from a model: shows most what that knows least."""
        measure = partial(
            unexplained_variance, model, config.schedule, self.composer, encode, words, self.distributed
        )
        return self.composer.weighted(kept_weights(self.folder / HARD_EXAMPLES, measure))

    def decoder(self, recipe: Recipe) -> float:
        """Teach the decoder alone to draw what the model's own sampler leaves; return its PSNR."""
        distributed, config = self.distributed, self.shape.autoencoder
        autoencoder, _ = self._kept()
        diffusion, tokenizer, _ = trained_diffusion(self.folder, self.shape)
        for network in (
            autoencoder.to(distributed.device),
            diffusion.to(distributed.device).requires_grad_(False),
        ):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        encode = encode_with(autoencoder.encoder, config.latent_scale, distributed)
        schedule = embedded.model_config(tokenizer, self.shape).schedule
        words = tokenized(tokenizer, distributed.device)
        redraw = redrawing(diffusion, schedule, words, self.shape.defaults, distributed)
        examples = SampledLatents(
            self.composer,
            encode,
            redraw,
            distributed.device,
            size=recipe.size(distributed.processes),
            seed=recipe.seed,
            folder=self.folder / "sampled" / "groups",
        )
        torch.manual_seed(recipe.seed)
        discriminator = Discriminator(DISCRIMINATOR_CHANNELS).to(distributed.device)
        module = DecoderWithDiscriminator(autoencoder.decoder.requires_grad_(True), discriminator)
        loss = CrispLoss(examples, config.latent_scale, distributed)
        preview = self._sampled_preview(autoencoder, encode, redraw)
        self._train(module, loss, recipe, "sampled", preview)
        return self._keep(autoencoder)

    def taesd(self, recipe: Recipe) -> Path:
        """Teach a tiny decoder what the decoder shows; it draws previews."""
        distributed, config = self.distributed, self.shape.autoencoder
        autoencoder, _ = self._kept()
        autoencoder.to(distributed.device)
        tiny = tiny_config(config, TAESD_CHANNELS)
        torch.manual_seed(recipe.seed)
        network = TinyDecoder(tiny).to(distributed.device)
        encode = encode_with(autoencoder.encoder, config.latent_scale, distributed)
        latents = FreshLatents(self.composer, encode, distributed.device)
        loss = DistillationLoss(
            latents, lambda values: autoencoder.decoder(values / config.latent_scale), distributed
        )
        self._train(network, loss, recipe, "taesd", lambda step: None)
        path = self.folder / TAESD
        if distributed.leads:
            save_taesd(path, tiny, network, torch.float16, {"made_by": MADE_BY, "data": DATA})
        return path

    def _train_autoencoder(
        self,
        model: Autoencoder,
        recipe: Recipe,
        name: str,
        terms: Mapping[str, Term],
        weights: Mapping[str, float],
    ) -> None:
        size = recipe.size(self.distributed.processes)
        loss = ReconstructionLoss(
            self.composer,
            model.config,
            self.distributed,
            size=size,
            seed=recipe.seed,
            terms=terms,
            weights=weights,
        )
        self._train(model, loss, recipe, name, lambda step: self._preview(name, model))

    def _train(self, model: nn.Module, loss: Loss, recipe: Recipe, name: str, validate: Validate) -> None:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with Display(quiet=not self.distributed.leads) as display:
            train(model, loss, recipe, self.folder / name, self.distributed, show=display, validate=validate)

    def _sampled_preview(self, autoencoder: Autoencoder, encode: Encode, redraw: Redraw) -> Validate:
        """Held-out scenes above, what the sampler makes of them below, as one picture."""
        scale = self.shape.autoencoder.latent_scale

        def validate(step: int) -> None:
            shown = self.composer.held_out(16, self.distributed.device)
            rng = generator(self.distributed.device, "preview")
            latents = redraw(encode(shown.pictures), shown.captions, PREVIEWED_STEPS, rng)
            with torch.no_grad():
                drawn = autoencoder.decoder(latents / scale)
            path = self.folder / "sampled" / "preview.png"
            save_grid(torch.cat([shown.pictures, drawn]), path, columns=16)

        return validate

    def _kept(self) -> tuple[Autoencoder, dict[str, float]]:
        return embedded.load_autoencoder(self.folder / AUTOENCODER, self.shape)

    def _keep(self, model: Autoencoder) -> float:
        """Measure an autoencoder on held-out pictures, and keep it for what follows."""
        psnr = held_out_psnr(self.composer, model, self.distributed.device)
        if self.distributed.leads:
            embedded.save_autoencoder(self.folder / AUTOENCODER, model, {"psnr": psnr})
        return psnr

    def _preview(self, name: str, model: Autoencoder) -> None:
        """Held-out scenes above, their reconstructions below, as one picture."""
        picture = self.composer.held_out(16, self.distributed.device).pictures
        with torch.no_grad():
            save_grid(torch.cat([picture, model(picture)[0]]), self.folder / name / "preview.png", columns=16)


@contextmanager
def prepared(
    folder: Path,
    shape: Shape,
    *,
    font: Path | None,
    device: str,
    dtype: str,
    scenes: str | None,
    seed: int,
) -> Iterator[Stages]:
    """Everything made ready.

    Args:
        scenes: a key of `MIXTURES`; None chooses by the device.
    """
    placement = choose(device, dtype)
    name = scenes or ("some" if device_kind(placement.device) == "cpu" else "all")
    if name not in MIXTURES:
        raise UsageError(f"no choice of scenes is called {name!r}; say {' or '.join(MIXTURES)}")
    with joined(placement.device, placement.dtype) as distributed:
        yield Stages(
            folder, shape, Composer(load_sprites(folder, font), shape.size, MIXTURES[name], seed), distributed
        )
