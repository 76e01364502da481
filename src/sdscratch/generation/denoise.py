"""The U-Net as a denoiser: in its own precision, as its device runs it best, guided by the prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import count as count_up
from typing import Any, TypeVar

import torch
from torch import Tensor

from sdscratch.diffusion.approximations import deep_cached, guided_between
from sdscratch.diffusion.conventions import sampler_parameters
from sdscratch.diffusion.guidance import (
    Guidance,
    GuidedDenoiser,
    Network,
    PairPredictor,
    Predictor,
    Pull,
    by_evaluation,
    classifier_free,
    conditioned,
    denoiser,
    pair_predictor,
    twice,
)
from sdscratch.diffusion.inpaint import instructed, with_channels
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.fast.compute import Compute
from sdscratch.generation.conditioning import second_pass
from sdscratch.generation.guided import alteration_of, guidance_of, prediction_of
from sdscratch.generation.known import Predictions
from sdscratch.generation.networks import PLAIN, Networks, dtype_of
from sdscratch.generation.requests import Progress
from sdscratch.generation.told import ToldPart
from sdscratch.generation.windows import Window, cropped
from sdscratch.models.altered import Alteration
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import UNetConfig
from sdscratch.models.unet import guidance_embedding
from sdscratch.options import ResolvedOptions, parse_interval

__all__ = ["OneByOne", "UNetRunner", "make_denoiser", "one_after_another", "sampler_options"]

Predicts = TypeVar("Predicts", Predictor, PairPredictor)


class UNetRunner:
    """The U-Net from float32 to float32, recorded or compiled where that is faster."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.window: Window | None = None  # the part of a larger picture that is predicted now
        self.known: Predictions | None = None  # looked into before the network is asked

    def network(self, deep_cache: int, alteration: Alteration = PLAIN) -> Network:
        """The U-Net for one picture, or one batch: what `deep_cache` keeps belongs to it alone."""
        dtype = dtype_of(self.networks["unet"])

        def run(x: Tensor, timesteps: Tensor, told: Conditioning, *deep: Tensor | None) -> tuple[Tensor, ...]:
            compute = self.computation(deep_cache > 1, alteration)  # another, where LoRAs come and go
            with torch.inference_mode():
                prediction, *features = compute(
                    x.to(dtype), timesteps, cropped(told, self.window).to(dtype), *deep
                )
                return prediction.float(), *features

        if deep_cache > 1:
            return deep_cached(run, deep_cache)
        return self.looked_up(lambda x, timesteps, told: run(x, timesteps, told)[0], dtype, alteration)

    def looked_up(self, network: Network, dtype: torch.dtype, alteration: Alteration) -> Network:
        """A network that is not asked for what is known."""

        def predict(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
            if self.known is None:
                return network(x, timesteps, told)
            asked = self.weights(), self.window, dtype, alteration
            return self.known(asked, x, timesteps, told, lambda: network(x, timesteps, told))

        return predict

    def weights(self) -> Hashable:
        """What tells the weights as they are now from all others."""
        files = self.networks.varied("unet") or self.networks.files
        changes = [
            {key: value for key, value in change.record().items() if key not in ("start", "stop")}
            for change in files.changes
        ]
        return files.hash(), json.dumps(changes), self.networks.seamless

    def computation(self, deep: bool, alteration: Alteration = PLAIN) -> Compute:
        """The U-Net as this device runs it best, with its deep features or without."""
        return self.networks.computation("unet", "predict" if deep else "forward", alteration)

    def watched(self, denoise: Denoiser, path: SigmaSchedule) -> Denoiser:
        """What a sampler is given in the place of `denoise`; whoever looks on (`explain`) wraps it here."""
        return denoise


def make_denoiser(
    runner: UNetRunner,
    path: SigmaSchedule,
    options: ResolvedOptions,
    prompt: Sequence[ToldPart],
    negative: Sequence[ToldPart],
    count: int,
    concat: Tensor | None = None,
) -> Denoiser:
    """The denoiser of `count` pictures.

    Args:
        prompt: its parts.
        negative: the negative prompt's one part; nothing where guidance needs none.
        concat: [1|n, k, h, w], what stands beside the latent in networks that take more: a mask and a masked
            picture, or a picture that an instruction is about, which is guided by too.
    """
    placement, files = runner.networks.placement, runner.networks.files
    prediction, unet = prediction_of(options, files), files.config.unet
    changes = any(part.changes for part in (*prompt, *negative))
    single = len(prompt) == 1 and prompt[0].weight == 1.0
    scale = second_pass(options.cfg_scale, unet)
    unguided = not negative or (scale <= 1.0 and single)
    alteration = alteration_of(options)

    def network_at(scale: float, alteration: Alteration) -> Network:
        return told_guidance(runner.network(options.deep_cache, alteration), unet, scale, placement.device)

    def one(beside: Tensor | None) -> Denoiser:
        """For one picture, or one batch: approximations keep what they have seen of it."""
        evaluations = count_up()

        def alone(network: Network) -> Callable[[int], Predictor]:
            return lambda evaluation: conditioned(network, with_channels(prompt[0].at(evaluation), beside))

        def pair(network: Network, perturbed: Network | None) -> Callable[[int], PairPredictor]:
            if unguided and perturbed is not None:
                with_prompt, with_perturbed = alone(network), alone(perturbed)
                return lambda evaluation: twice(with_prompt(evaluation), with_perturbed(evaluation))

            def choose(evaluation: int) -> PairPredictor:
                without = negative[0].at(evaluation)
                pulls = [Pull(part.at(evaluation), part.weight) for part in prompt]
                if unet.beside == "picture" and beside is not None:
                    pulls, without = instructed(pulls, without, beside, scale, options.image_cfg_scale)
                else:
                    pulls = [Pull(with_channels(pull.prompt, beside), pull.weight) for pull in pulls]
                    without = with_channels(without, beside)
                return pair_predictor(network, pulls, without, perturbed=perturbed)

            return choose

        def edited(choose: Callable[[int], Predicts]) -> Predicts:
            return by_evaluation(choose, evaluations) if changes else choose(0)

        def plain(network: Network) -> Denoiser:
            return denoiser(edited(alone(network)), path, prediction)

        def guided(network: Network, guidance: Guidance, perturbed: Network | None = None) -> Denoiser:
            return GuidedDenoiser(edited(pair(network, perturbed)), path, prediction, guidance)

        network, perturbed = network_at(options.cfg_scale, alteration), None
        if options.pag_scale:
            perturbed = network_at(options.cfg_scale, replace(alteration, perturbed=True))
        bare = unguided and perturbed is None
        whole = (
            plain(network)
            if bare
            else guided(network, guidance_of(options, 1.0 if unet.beside == "picture" else scale), perturbed)
        )
        if options.cfg_interval is None or (bare and unet.guidance is None):
            return whole
        if unet.guidance is not None:
            network = network_at(1.0, alteration)
        calm = plain(network) if unguided or single else guided(network, Guidance(classifier_free(1.0)))
        return guided_between(*parse_interval(options.cfg_interval), whole, calm)

    if placement.batches:
        return runner.watched(one(concat), path)
    rows = [concat] * count if concat is None or concat.shape[0] == 1 else concat.split(1)
    return runner.watched(OneByOne([one(row) for row in rows]), path)


def told_guidance(network: Network, unet: UNetConfig, scale: float, device: torch.device) -> Network:
    """A network that is told the guidance with all else, where it was distilled under it; else itself."""
    if unet.guidance is None:
        return network
    embedding = guidance_embedding(scale, unet.guidance).to(device)

    def told(x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return network(x, timesteps, replace(conditioning, guidance=embedding.expand(len(x), -1)))

    return told


class OneByOne:
    """A denoiser that runs pictures one after another, each by its own, so that none depends on its batch."""

    def __init__(self, denoisers: Sequence[Denoiser]) -> None:
        self._denoisers = denoisers
        self._newest: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimates of x₀, guided where each is."""
        self._newest = x, x.split(1)
        pictures = zip(self._denoisers, self._newest[1], strict=True)
        return torch.cat([one(picture, sigma) for one, picture in pictures])

    def unconditional(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimates without the prompt; of the newest x at no cost."""
        known = self._newest is not None and self._newest[0] is x
        pictures = self._newest[1] if self._newest is not None and known else x.split(1)
        estimates = (getattr(one, "unconditional", one) for one in self._denoisers)
        return torch.cat([one(picture, sigma) for one, picture in zip(estimates, pictures, strict=True)])


def one_after_another(runs: Sequence[Iterator[Progress]]) -> Iterator[Progress]:
    """Pictures whose samplers choose their own steps, each on its own; a step is a picture."""
    newest = [next(run) for run in runs]
    yield Progress(0, len(runs), torch.cat([each.latent for each in newest]), None)
    for index, run in enumerate(runs):
        for newest[index] in run:
            pass
        denoised = torch.cat([each.latent if each.denoised is None else each.denoised for each in newest])
        yield Progress(index + 1, len(runs), torch.cat([each.latent for each in newest]), denoised)


def sampler_options(options: ResolvedOptions) -> dict[str, Any]:
    """What a sampler takes beyond the four arguments that all take."""
    own = {"eta": options.eta} if options.sampler == "ddim" else {}
    return sampler_parameters(options.like, options.sampler) | own
