"""Looking at the U-Net as the sampler uses it: each time it is asked, what went in and what it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdscratch.diffusion.guidance import ESTIMATES, Network
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.explain.hooks import Attentions, BlockOutput, UNetWatch
from sdscratch.generation.conditioning import ToldPart
from sdscratch.generation.denoise import UNetRunner
from sdscratch.generation.networks import PLAIN
from sdscratch.models.altered import Alteration
from sdscratch.models.conditioning import Conditioning

__all__ = ["Evaluation", "Inside", "Told", "WatchedRunner"]

APART = 4  # passes that are looked at where a recorded U-Net cannot be: each costs a pass of its own


@dataclass(frozen=True, eq=False)
class Inside:
    """What was seen inside the U-Net in one pass."""

    outputs: dict[str, BlockOutput]  # by block
    attention: dict[tuple[int, int], Tensor]  # [words, h, w] float32 by (h, w), the finest first


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The denoiser asked once. Tensors are [c, h, w] float32 in σ-space, on the CPU.

    Attributes:
        x: what it was asked about.
        denoised: its estimate of x₀, guided.
        with_prompt: the estimate with the prompt alone; of several that AND joins, with the first.
        without: the estimate without the prompt; None where there is no guidance.
    """

    sigma: float
    timestep: float
    x: Tensor
    denoised: Tensor
    with_prompt: Tensor
    without: Tensor | None
    inside: Inside | None


@dataclass(frozen=True, eq=False)
class Told:
    """What the U-Net is told of a prompt, and how its tokens are counted as words.

    Attributes:
        part: the prompt's first part, encoded.
        words: of each stage of it: [tokens, words], ones and zeros; words as `reading.words_of_part`.
    """

    part: ToldPart
    words: tuple[Tensor, ...]

    def find(self, context: Tensor) -> tuple[int, int] | None:
        """Which row of a context [n, t, d] is the prompt's, and which of its stages that is."""
        for stage, conditioning in enumerate(self.part.conditionings):
            own = conditioning.context[0]
            for row, other in enumerate(context):
                if other.shape == own.shape and torch.equal(other, own):
                    return row, stage
        return None


@dataclass
class _Asking:
    """One call of the denoiser while it lasts."""

    rows: list[Tensor] = field(default_factory=list)  # predictions, in the order of the calls
    prompt: int = 0  # which of them is the prompt's
    timestep: float = 0.0
    inside: Inside | None = None


class WatchedRunner(UNetRunner):
    """A `UNetRunner` whose every prediction is looked at; what it computes is the same.

    On a CPU the networks' own passes are watched. A GPU plays recordings back, in which nothing can be
    watched: there a few passes are computed once more, call by call, and only looked at.

    Args:
        plain: the runner in whose place this one stands.
        watch: what looks into the U-Net; it is attached to the network by whoever loads it.
        heard: told of every evaluation.
    """

    def __init__(self, plain: UNetRunner, watch: UNetWatch, heard: Callable[[Evaluation], None]) -> None:
        super().__init__(plain.networks)
        self.watch, self.heard = watch, heard
        self.told: Told | None = None  # nothing is seen inside before it is known what the prompt is
        self._asking: _Asking | None = None
        self._planned, self._asked = 1, 0

    def network(self, deep_cache: int, alteration: Alteration = PLAIN) -> Network:
        """The U-Net, watched; as of `UNetRunner.network`."""
        run = super().network(deep_cache, alteration)
        recorded = self.networks.placement.accelerates

        def watched(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
            found = self._found(told)
            looks = found is not None and self._asking is not None and self._asking.inside is None
            if recorded:
                looks = looks and self._asked % max(1, self._planned // APART) == 0
            if looks and found is not None and not recorded:
                prediction, inside = self._look(run, x, timesteps, told, found)
            else:
                prediction, inside = run(x, timesteps, told), None
                if looks and found is not None:
                    inside = self._look(self._plain, x, timesteps, told, found)[1]
            self._take(prediction, timesteps, found, inside)
            return prediction

        return watched

    def watched(self, denoise: Denoiser, path: SigmaSchedule) -> Denoiser:
        """The denoiser, watched; as of `UNetRunner.watched`."""
        self._planned, self._asked = len(path.timesteps), 0
        return _WatchedDenoiser(denoise, self)

    def _found(self, told: Conditioning) -> tuple[int, int] | None:
        return None if self.told is None else self.told.find(told.context)

    def _look(
        self, run: Network, x: Tensor, timesteps: Tensor, told: Conditioning, found: tuple[int, int]
    ) -> tuple[Tensor, Inside]:
        assert self.told is not None
        attentions = Attentions(self.told.words[found[1]])
        self.watch.begin(found[0], attentions)
        try:
            prediction = run(x, timesteps, told)
        finally:
            self.watch.end()
        return prediction, Inside(self.watch.outputs, attentions.maps((x.shape[2], x.shape[3])))

    def _plain(self, x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        """The U-Net call by call, whatever is recorded of it."""
        network = self.networks["unet"]
        dtype = next(network.parameters()).dtype
        with torch.inference_mode():
            prediction: Tensor = network(x.to(dtype), timesteps, told.to(dtype))
            return prediction.float()

    def _take(
        self, prediction: Tensor, timesteps: Tensor, found: tuple[int, int] | None, inside: Inside | None
    ) -> None:
        if self._asking is None:
            return
        if found is not None and self._asking.inside is None:
            self._asking.prompt = len(self._asking.rows) + found[0]
        self._asking.timestep = float(timesteps[0])
        self._asking.rows += list(prediction)
        self._asking.inside = self._asking.inside or inside

    def ask(self, denoise: Denoiser, x: Tensor, sigma: float) -> Tensor:
        """Ask the denoiser, and tell of it."""
        self._asking = _Asking()
        try:
            denoised = denoise(x, sigma)
            if len(x) == 1:
                self.heard(self._evaluation(self._asking, x, sigma, denoised))
        finally:
            self._asking = None
        self._asked += 1
        return denoised

    def _evaluation(self, asking: _Asking, x: Tensor, sigma: float, denoised: Tensor) -> Evaluation:
        estimate = ESTIMATES[self.networks.files.config.schedule.prediction]
        estimates = [kept(estimate(row, x[0], sigma)) for row in asking.rows]
        prompt = min(asking.prompt, len(estimates) - 1)
        return Evaluation(
            sigma=sigma,
            timestep=asking.timestep,
            x=kept(x[0]),
            denoised=kept(denoised[0]),
            with_prompt=estimates[prompt] if estimates else kept(denoised[0]),
            without=estimates[0] if len(estimates) > 1 and prompt > 0 else None,
            inside=asking.inside,
        )


class _WatchedDenoiser:
    """A denoiser that is looked at whenever it is asked."""

    def __init__(self, plain: Denoiser, runner: WatchedRunner) -> None:
        self._plain, self._runner = plain, runner
        if hasattr(plain, "unconditional"):  # samplers that need it ask for it
            self.unconditional = plain.unconditional

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimate of x₀."""
        return self._runner.ask(self._plain, x, sigma)


def kept(x: Tensor) -> Tensor:
    """A copy that nothing changes any more."""
    return x.detach().float().cpu().clone()
