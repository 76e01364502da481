"""One picture drawn as every day, and watched: what happened at every stage, in memory that stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.explain.hooks import DecoderWatch, EncoderWatch, TextWatch, UNetWatch
from sdscratch.explain.reading import words_of_part, words_of_stage
from sdscratch.explain.runner import Evaluation, Inside, Told, WatchedRunner, kept
from sdscratch.explain.thinned import Thinned
from sdscratch.explain.updates import Update, rms, update_of
from sdscratch.generation.conditioning import ToldPart
from sdscratch.generation.generate import generate
from sdscratch.generation.pipeline import Pipeline
from sdscratch.generation.requests import Event, Picture, Progress, Request

__all__ = ["Run", "Step", "watched"]

STEPS_KEPT = 32  # whose tensors are kept; of the others, numbers alone
INSIDE_KEPT = 2**25  # numbers of attention and blocks that are kept at most: 128 MB
RECENT = 8  # evaluations among which a step's first one is looked for
EARLIER = 3  # estimates of the steps before that a step may go back to


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the sampler. Tensors [c, h, w] float32 in σ-space; at the end, as the decoder takes it.

    Attributes:
        before: x, with which it began; `after`: x′.
        asked: the first evaluation in it.
        evaluations: how many there were.
    """

    index: int
    next_sigma: float | None  # None where the sampler chooses its own
    before: Tensor
    after: Tensor
    asked: Evaluation
    evaluations: int
    update: Update

    @property
    def noise(self) -> Tensor:
        """The guided prediction as noise of unit variance: (x − x₀)/σ."""
        return (self.asked.x - self.asked.denoised) / self.asked.sigma

    @property
    def pull(self) -> Tensor | None:
        """What guidance added to the estimate that the prompt alone gives; None without guidance."""
        return None if self.asked.without is None else self.asked.denoised - self.asked.with_prompt


@dataclass(frozen=True)
class Numbers:
    """What is kept of every step."""

    sigma: float
    next_sigma: float | None
    timestep: float
    x: float  # RMS, as the others
    noise: float
    denoised: float
    pull: float | None


@dataclass(eq=False)
class Run:
    """Everything that was seen of one picture.

    Attributes:
        prompt, negative: as the U-Net was told them, part by part; empty where it was not asked.
        words: the prompt's words in the order of the first axis of attention maps.
        start: [c, h, w], the latent that sampling began with, in σ-space; None before.
        second: whether another pass at a larger size followed, of which nothing but the end is kept.
        total: mean attention of all passes, [words, h, w] by (h, w).
    """

    request: Request
    path: SigmaSchedule | None = None
    prompt: tuple[ToldPart, ...] = ()
    negative: tuple[ToldPart, ...] = ()
    words: tuple[str, ...] = ()
    text: TextWatch = field(default_factory=TextWatch)
    encoder: EncoderWatch = field(default_factory=EncoderWatch)
    decoder: DecoderWatch = field(default_factory=DecoderWatch)
    start: Tensor | None = None
    end: Tensor | None = None
    steps: Thinned[Step] = field(default_factory=lambda: Thinned(STEPS_KEPT))
    numbers: list[Numbers] = field(default_factory=list)
    inside: Thinned[Inside] = field(default_factory=lambda: Thinned(STEPS_KEPT))
    inside_steps: list[int] = field(default_factory=list)  # in which step each pass that was seen inside was
    sums: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    seen: int = 0  # passes in the sums
    second: bool = False
    picture: Picture | None = None

    @property
    def total(self) -> dict[tuple[int, int], Tensor]:
        """The mean of all passes' attention."""
        return {size: total / self.seen for size, total in self.sums.items()}


def watched(pipeline: Pipeline, request: Request) -> Iterator[Event | Run]:
    """Draw a picture, watched: every event of `generate`, and last of all the run."""
    watcher = _Watcher(pipeline, Run(request))
    with watcher.attached():
        watcher.read_prompt()
        for event in generate(pipeline, [request]):
            if isinstance(event, Progress):
                watcher.progress(event)
            elif isinstance(event, Picture):
                watcher.run.picture = event
            yield event
    yield watcher.run


class Watch(Protocol):
    """Looks at a network."""

    def attach(self, network: torch.nn.Module) -> list[RemovableHandle]: ...


class _Watcher:
    """Puts together what the observers tell, step by step."""

    def __init__(self, pipeline: Pipeline, run: Run) -> None:
        self.pipeline, self.run = pipeline, run
        self.unet = UNetWatch()
        self.runner = WatchedRunner(pipeline.sampling.unet, self.unet, self.heard)
        self.asked: list[Evaluation] = []  # in the step that lasts
        self.recent: list[Evaluation] = []  # and before it
        self.earlier: list[Tensor] = []  # estimates of the steps before, the newest first
        self.x: Tensor | None = None
        self.handles: list[RemovableHandle] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Look on, at what is loaded and what will be; afterwards look away."""
        pipeline, plain = self.pipeline, self.pipeline.sampling.unet
        networks, unwatched = pipeline.networks, pipeline.networks.watch
        pipeline.encode_prompts.clear()  # what is known already would not be computed again
        pipeline.encode_picture.clear()
        for name in networks.sizes:
            self.loaded(name, networks[name])
        networks.watch, pipeline.sampling.unet = self.loaded, self.runner
        try:
            yield
        finally:
            networks.watch, pipeline.sampling.unet = unwatched, plain
            for handle in self.handles:
                handle.remove()

    def loaded(self, name: str, network: torch.nn.Module) -> None:
        """Attach what looks at a network of this name."""
        run = self.run
        watches: dict[str, Watch] = {
            "text": run.text,
            "unet": self.unet,
            "encoder": run.encoder,
            "decoder": run.decoder,
        }
        if name in watches:
            self.handles += watches[name].attach(network)

    def read_prompt(self) -> None:
        """Encode the prompts, as they will be once more when the picture is drawn: from what is kept."""
        run, options = self.run, self.run.request.options
        run.path = self.pipeline.path(options, from_init=run.request.init is not None)
        if not run.path.timesteps:
            return
        self.pipeline.adopt_loras(options.prompt)
        run.prompt, run.negative = self.pipeline.encode_prompts.of(options)
        first, tokenizer = run.prompt[0], self.pipeline.files.tokenizer
        run.words = tuple(words_of_part(first.planned, tokenizer))
        tables = []
        for stage, conditioning in zip(first.planned.stages, first.conditionings, strict=True):
            table = torch.zeros(conditioning.context.shape[1], len(run.words))
            for word in words_of_stage(stage, tokenizer):
                table[list(word.places), run.words.index(word.key)] = 1.0
            tables.append(table)
        self.runner.told = Told(first, tuple(tables))

    def heard(self, evaluation: Evaluation) -> None:
        """The denoiser was asked."""
        self.asked.append(evaluation)

    def add_inside(self, inside: Inside) -> None:
        """Keep what was seen inside the U-Net, and add it to the mean; what a pass left out is as it was."""
        run = self.run
        if run.seen:
            last = run.inside.values()[-1]
            inside = Inside(last.outputs | inside.outputs, last.attention | inside.attention)
        if not run.seen:
            numbers = sum(maps.numel() for maps in inside.attention.values())
            numbers += sum(output.maps.numel() for output in inside.outputs.values())
            run.inside = Thinned(min(STEPS_KEPT, max(4, INSIDE_KEPT // max(numbers, 1))))
        run.inside.add(inside)
        run.inside_steps.append(len(run.numbers))
        for size, maps in inside.attention.items():
            run.sums[size] = maps if size not in run.sums else run.sums[size] + maps
        run.seen += 1

    def progress(self, progress: Progress) -> None:
        """A step is done, or the first one begins."""
        latent, asked, self.asked = kept(progress.latent[0]), self.asked, []
        self.run.end = latent
        if self.run.numbers and asked and asked[0].x.shape != self.run.steps.values()[0].before.shape:
            self.run.second = True  # a second pass at another size (hires): the first one is shown
        if self.run.second:
            return
        if progress.done <= 1:
            self.begin(asked[0].x if asked else latent)
        self.recent = [*self.recent, *asked][-RECENT:]
        if self.x is not None and self.recent and progress.done:
            first = self.first_of(progress, asked)
            self.step(self.x, latent, first, asked, last=progress.done == progress.total)
        self.x = latent

    def first_of(self, progress: Progress, asked: list[Evaluation]) -> Evaluation:
        """The evaluation that a step began with; some samplers make it in the step before, looking ahead."""
        if progress.denoised is not None:
            denoised = kept(progress.denoised[0])
            for each in reversed(self.recent):
                if torch.equal(each.denoised, denoised):
                    return each
        return (asked or self.recent)[0]

    def begin(self, latent: Tensor) -> None:
        """Begin, for the first time or (in float32 after NaN) anew."""
        run = self.run
        run.start, self.x, self.earlier, self.recent = latent, latent, [], []
        run.steps, run.numbers = Thinned(STEPS_KEPT), []
        run.inside, run.inside_steps, run.sums, run.seen = Thinned(STEPS_KEPT), [], {}, 0

    def step(
        self, before: Tensor, after: Tensor, first: Evaluation, asked: list[Evaluation], *, last: bool
    ) -> None:
        """Keep a step."""
        run, path, index = self.run, self.run.path, len(self.run.numbers)
        assert path is not None
        options = run.request.options
        on_grid = index + 1 < len(path.sigmas) and path.sigmas[index] == first.sigma
        next_sigma = path.sigmas[index + 1] if on_grid else None
        own = [each.denoised for each in reversed(asked)] or [first.denoised]
        estimates = own + self.earlier
        update = update_of(
            options.sampler,
            before,
            estimates,
            after / path.end_scale if last else after,
            sigma=first.sigma,
            next_sigma=next_sigma,
            previous_sigma=run.numbers[-1].sigma if run.numbers else None,
            eta=options.eta,
        )
        step = Step(index, next_sigma, before, after, replace(first, inside=None), len(own), update)
        self.earlier = [first.denoised, *self.earlier][:EARLIER]
        for each in asked:
            if each.inside is not None:
                self.add_inside(each.inside)
        run.steps.add(step)
        pull = None if step.pull is None else rms(step.pull)
        run.numbers.append(
            Numbers(
                sigma=first.sigma,
                next_sigma=next_sigma,
                timestep=first.timestep,
                x=rms(before),
                noise=rms(step.noise),
                denoised=rms(first.denoised),
                pull=pull,
            )
        )
