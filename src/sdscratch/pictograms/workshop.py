"""The stages in which the embedded model is made: autoencoder, decoder, text encoder and U-Net, tiny decoder.

Each goes on where it was stopped; what they keep and hand on lies in one folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.taesd import taesd_beside
from sdscratch.checkpoints.writer import PROVENANCE
from sdscratch.device import choose
from sdscratch.errors import UsageError
from sdscratch.files import atomic_write
from sdscratch.models.config import ModelConfig
from sdscratch.models.taesd import TinyDecoder
from sdscratch.pictograms import model as embedded
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.crisp import CRITIC_CHANNELS, CrispLoss, DecoderWithCritic
from sdscratch.pictograms.focus import kept_focus, unexplained
from sdscratch.pictograms.grow import grow_autoencoder, grow_diffusion, kept_meaning
from sdscratch.pictograms.mixtures import CPU, FULL
from sdscratch.pictograms.model import Shape
from sdscratch.pictograms.pictograms import load_sprites
from sdscratch.pictograms.sampled import Redraw, SampledLatents, redrawing
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.engine.distributed import Machine, joined
from sdscratch.training.engine.loop import Watch, train
from sdscratch.training.engine.recipe import Recipe
from sdscratch.training.engine.replicas import Loss
from sdscratch.training.engine.rng import generator
from sdscratch.training.engine.state import FOLDER, load_weights, newest_checkpoint
from sdscratch.training.run.display import Display
from sdscratch.training.tasks.adversarial import Critic
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
from sdscratch.training.tasks.latents import Encode, FreshLatents, LaneLatents, encode_with
from sdscratch.training.tasks.samples import save_grid
from sdscratch.training.tasks.taesd import DistillationLoss, save_taesd, tiny_config

__all__ = ["MIXTURES", "Workshop", "begin", "export", "workshop"]

# What stages hand on, in their folder.
AUTOENCODER = Path("autoencoder.safetensors")
TOKENIZER = Path("diffusion", "tokenizer.json")
FOCUS = Path("diffusion", "focus.json")
TAESD = Path("taesd.safetensors")
BEGUN = Path("begun.safetensors")  # the model that a folder began with

# What the files say of themselves.
MADE_BY = "python -m sdscratch.pictograms"
DATA = "Noto Color Emoji (SIL OFL 1.1), composed with captions"

LATE_BIAS = 0.6  # late timesteps come more often: see `stratified_timesteps`
TAESD_CHANNELS = 16  # a quarter of the decoder's time
# Of the decoder's loss, when it alone is trained: squares count most, as they do in PSNR. The other terms see
# to it that edges stay sharp.
REFINED = {"l1": 0.5, "l2": 8.0, "gradient": 0.5}
PREVIEWED_STEPS = 10  # of 20 left
KEPT_MEANING = 0.2  # weight of old latent channels staying what they were, while the autoencoder is grown

MIXTURES = {"some": CPU, "all": FULL}


@dataclass(frozen=True)
class Workshop:
    """What every stage needs: a folder, the model's shape, pictures, a machine."""

    folder: Path
    shape: Shape
    composer: Composer
    machine: Machine

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
            small.to(self.machine.device).requires_grad_(False)
            kept = small.config.latent_channels
            terms["meaning"], weights["meaning"] = kept_meaning(small.encoder), KEPT_MEANING
        model.to(self.machine.device)
        self._train_autoencoder(model, recipe, "autoencoder", terms, weights)
        mean, std = latent_statistics(self.composer, model.encoder, self.machine.device)
        mean[:kept], std[:kept] = 0.0, 1.0
        fold_normalisation(model, mean, std)
        return self._keep(model)

    def refine(self, recipe: Recipe) -> float:
        """Train the decoder further while the encoder, and with it what latents mean, stays as it is."""
        model, _ = self._kept()
        model.to(self.machine.device).decoder.requires_grad_(True)
        self._train_autoencoder(model, recipe, "decoder", TERMS, REFINED)
        return self._keep(model)

    def diffusion(self, recipe: Recipe, grow: Path | None = None) -> None:
        """Train text encoder and U-Net; at every checkpoint the model so far is `preview.safetensors`.

        Args:
            grow: a model whose text encoder and U-Net a new run begins with: a smaller one, or one of the
                same size, and then what that one knows least is shown most.
        """
        machine, shape = self.machine, self.shape
        coder, figures = self._kept()
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
            same_size = begun.config == coder.config
        model.to(machine.device)
        encoder = coder.encoder.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        encode = encode_with(encoder, config.autoencoder.latent_scale, machine)
        words = tokenized(tokenizer, machine.device)
        composer = self._focused(model, config, encode, words) if same_size else self.composer
        latents = (
            LaneLatents(composer, encode, machine.device, recipe.seed)
            if machine.device.type == "cpu"
            else FreshLatents(composer, encode, machine.device)
        )
        loss = DenoisingLoss(
            config.schedule,
            words,
            latents,
            machine,
            size=recipe.size(machine.processes),
            seed=recipe.seed,
            late_bias=LATE_BIAS,
        )

        def preview(step: int) -> None:
            provenance = {"steps": step, "samples": step * loss.size, **figures}
            path = self.folder / "preview.safetensors"
            embedded.save_embedded(path, shape, coder, model, tokenizer, provenance)

        self._train(model, loss, recipe, "diffusion", preview)

    def _focused(self, model: Diffusion, config: ModelConfig, encode: Encode, words: Words) -> Composer:
        """The composer of a run that goes on from a model: shows most what that knows least."""
        measure = partial(unexplained, model, config.schedule, self.composer, encode, words, self.machine)
        return self.composer.focused(kept_focus(self.folder / FOCUS, measure))

    def decoder(self, recipe: Recipe) -> float:
        """Teach the decoder alone to draw what the model's own sampler leaves; return its PSNR."""
        machine, config = self.machine, self.shape.autoencoder
        coder, _ = self._kept()
        diffusion, tokenizer, _ = trained_diffusion(self.folder, self.shape)
        for network in (coder.to(machine.device), diffusion.to(machine.device).requires_grad_(False)):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        encode = encode_with(coder.encoder, config.latent_scale, machine)
        schedule = embedded.model_config(tokenizer, self.shape).schedule
        words = tokenized(tokenizer, machine.device)
        redraw = redrawing(diffusion, schedule, words, self.shape.defaults, machine)
        examples = SampledLatents(
            self.composer,
            encode,
            redraw,
            machine.device,
            size=recipe.size(machine.processes),
            seed=recipe.seed,
            folder=self.folder / "sampled" / "groups",
        )
        torch.manual_seed(recipe.seed)
        critic = Critic(CRITIC_CHANNELS).to(machine.device)
        module = DecoderWithCritic(coder.decoder.requires_grad_(True), critic)
        loss = CrispLoss(examples, config.latent_scale, machine)
        preview = self._sampled_preview(coder, encode, redraw)
        self._train(module, loss, recipe, "sampled", preview)
        return self._keep(coder)

    def taesd(self, recipe: Recipe) -> Path:
        """Teach a tiny decoder what the decoder shows; it draws previews."""
        machine, config = self.machine, self.shape.autoencoder
        coder, _ = self._kept()
        coder.to(machine.device)
        tiny = tiny_config(config, TAESD_CHANNELS)
        torch.manual_seed(recipe.seed)
        network = TinyDecoder(tiny).to(machine.device)
        encode = encode_with(coder.encoder, config.latent_scale, machine)
        latents = FreshLatents(self.composer, encode, machine.device)
        loss = DistillationLoss(latents, lambda values: coder.decoder(values / config.latent_scale), machine)
        self._train(network, loss, recipe, "taesd", lambda step: None)
        path = self.folder / TAESD
        if machine.leads:
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
        size = recipe.size(self.machine.processes)
        loss = ReconstructionLoss(
            self.composer,
            model.config,
            self.machine,
            size=size,
            seed=recipe.seed,
            terms=terms,
            weights=weights,
        )
        self._train(model, loss, recipe, name, lambda step: self._preview(name, model))

    def _train(self, model: nn.Module, loss: Loss, recipe: Recipe, name: str, watch: Watch) -> None:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with Display(quiet=not self.machine.leads) as display:
            train(model, loss, recipe, self.folder / name, self.machine, show=display, watch=watch)

    def _sampled_preview(self, coder: Autoencoder, encode: Encode, redraw: Redraw) -> Watch:
        """Held-out scenes above, what the sampler makes of them below, as one picture."""
        scale = self.shape.autoencoder.latent_scale

        def look(step: int) -> None:
            shown = self.composer.held_out(16, self.machine.device)
            chance = generator(self.machine.device, "preview")
            latents = redraw(encode(shown.pictures), shown.captions, PREVIEWED_STEPS, chance)
            with torch.no_grad():
                drawn = coder.decoder(latents / scale)
            path = self.folder / "sampled" / "preview.png"
            save_grid(torch.cat([shown.pictures, drawn]), path, columns=16)

        return look

    def _kept(self) -> tuple[Autoencoder, dict[str, float]]:
        return embedded.load_autoencoder(self.folder / AUTOENCODER, self.shape)

    def _keep(self, model: Autoencoder) -> float:
        """Measure an autoencoder on held-out pictures, and keep it for what follows."""
        psnr = held_out_psnr(self.composer, model, self.machine.device)
        if self.machine.leads:
            embedded.save_autoencoder(self.folder / AUTOENCODER, model, {"psnr": psnr})
        return psnr

    def _preview(self, name: str, model: Autoencoder) -> None:
        """Held-out scenes above, their reconstructions below, as one picture."""
        picture = self.composer.held_out(16, self.machine.device).pictures
        with torch.no_grad():
            save_grid(torch.cat([picture, model(picture)[0]]), self.folder / name / "preview.png", columns=16)


def begin(folder: Path, shape: Shape, path: Path) -> None:
    """Lay a model into a new folder, so that training goes on from it.

    Raises:
        UsageError: the model has another shape, or the folder is in use.
        CheckpointError: the model is missing, unreadable or refused.
    """
    target = folder / AUTOENCODER
    if target.exists():
        raise UsageError(f"{target} is there already; name another --folder, or go on with this one")
    autoencoder, diffusion, tokenizer = embedded.open_trained(path)
    if autoencoder.config != shape.autoencoder:
        raise UsageError(f"{path} is no model for {shape.size}×{shape.size} pixels; say another --size")
    provenance = json.loads(open_model(str(path)).metadata.get(PROVENANCE, "{}"))
    embedded.save_tokenizer(folder / TOKENIZER, tokenizer)
    embedded.save_embedded(folder / BEGUN, shape, autoencoder, diffusion, tokenizer, provenance)
    figures = {name: provenance[name] for name in ("psnr",) if name in provenance}
    embedded.save_autoencoder(target, autoencoder, figures)  # last: it says that the folder is in use


def trained_diffusion(folder: Path, shape: Shape) -> tuple[Diffusion, Tokenizer, int]:
    """Text encoder and U-Net as they are in a folder, with their tokenizer and the steps behind them.

    They are those of the last checkpoint, or those of the model that the folder began with.

    Raises:
        SdscratchError: there are none.
    """
    tokenizer = embedded.load_tokenizer(folder / TOKENIZER)
    if (folder / BEGUN).is_file() and newest_checkpoint(folder / TOKENIZER.parent / FOLDER) is None:
        _, model, _ = embedded.open_trained(folder / BEGUN)
        steps = json.loads(open_model(str(folder / BEGUN)).metadata[PROVENANCE]).get("steps", 0)
    else:
        model = Diffusion.from_config(embedded.model_config(tokenizer, shape))
        steps = load_weights(folder / TOKENIZER.parent, model)
    return model.eval(), tokenizer, steps


def export(folder: Path, shape: Shape, path: Path) -> int:
    """Write the model as it is at the last checkpoint in `folder`; return the steps behind it.

    The tiny decoder, where there is one, goes beside it, under the name by which it is found there.
    """
    autoencoder, figures = embedded.load_autoencoder(folder / AUTOENCODER, shape)
    model, tokenizer, steps = trained_diffusion(folder, shape)
    provenance = {
        "made_by": MADE_BY,
        "data": DATA,
        "steps": steps,
        **figures,
    }
    embedded.save_embedded(path, shape, autoencoder, model, tokenizer, provenance)
    if (folder / TAESD).is_file():
        with atomic_write(taesd_beside(path), overwrite=True) as file:
            file.write((folder / TAESD).read_bytes())
    return steps


@contextmanager
def workshop(
    folder: Path,
    shape: Shape,
    *,
    font: Path | None,
    device: str,
    dtype: str,
    scenes: str | None,
    seed: int,
) -> Iterator[Workshop]:
    """Everything made ready.

    Args:
        scenes: a key of `MIXTURES`; None chooses by the device.
    """
    placement = choose(device, dtype)
    name = scenes or ("some" if placement.device.type == "cpu" else "all")
    if name not in MIXTURES:
        raise UsageError(f"no choice of scenes is called {name!r}; say {' or '.join(MIXTURES)}")
    with joined(placement.device, placement.dtype) as machine:
        yield Workshop(
            folder, shape, Composer(load_sprites(folder, font), shape.size, MIXTURES[name], seed), machine
        )
