"""ControlNets and adapters at work: hints encoded once, and each step told what steers it.

What a step does without a control is not computed: neither outside its range, nor for the negative prompt
where it counts for the prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdscratch.addons.control import OpenedControl, network_name
from sdscratch.addons.controlnet import ControlNetFile
from sdscratch.addons.ip_adapter import ImagePromptFile
from sdscratch.addons.t2i_adapter import AdapterFile
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.conventions import convention_of
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.errors import UsageError
from sdscratch.generation.conditioning import ToldPart
from sdscratch.generation.networks import Networks, dtype_of
from sdscratch.images.fit import square
from sdscratch.images.hints import hint_levels, make_hint
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.control import Control
from sdscratch.models.controlnet import HintedControlNet, guess_scales, soft_scales
from sdscratch.models.image_encoder import normalised
from sdscratch.models.ip_adapter import PromptedByImage
from sdscratch.models.t2i_adapter import SOFT_SCALES, HintedAdapter
from sdscratch.options import ResolvedOptions

__all__ = ["ControlRunner", "SteeredPart", "acts"]

HINTS_KEPT = 8  # encoded hints, of 5 MB each in Stable Diffusion at 512×512
LAST_TIMESTEP = 999

Parts = tuple[ToldPart, ...]


@dataclass(frozen=True)
class Acting:
    """A control, and the evaluations of the network at which it acts."""

    control: Control
    at: tuple[bool, ...]  # by evaluation; beyond the last as at the last
    negative: Control | None  # what steers where the negative prompt is read

    @property
    def always(self) -> bool:
        """Whether it acts at every step."""
        return all(self.at)

    def acts(self, evaluation: int) -> bool:
        """Whether it acts at an evaluation, counted from 0."""
        return self.at[min(evaluation, len(self.at) - 1)]


@dataclass(frozen=True)
class SteeredPart(ToldPart):
    """A text, and what steers while it is read."""

    acting: tuple[Acting, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it, or what steers it, is another in the course of the picture."""
        return len(self.conditionings) > 1 or not all(each.always for each in self.acting)

    def at(self, evaluation: int) -> Conditioning:
        """What is told at an evaluation of the network, counted from 0."""
        told = ToldPart.at(self, evaluation)
        controls = tuple(each.control for each in self.acting if each.acts(evaluation))
        return replace(told, controls=told.controls + controls) if controls else told


def steered(parts: Sequence[ToldPart], acting: Sequence[Acting]) -> Parts:
    """Texts with what steers while they are read."""
    return tuple(
        SteeredPart(part.planned, part.conditionings, part.embeddings, tuple(acting)) for part in parts
    )


class ControlRunner:
    """Loads the networks of controls, encodes their hints, and keeps the newest of these."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._attached: set[str] = set()
        self._kept: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}  # encoded hints, the newest last

    def __call__(
        self,
        controls: Sequence[OpenedControl],
        options: ResolvedOptions,
        path: SigmaSchedule,
        prompt: Sequence[ToldPart],
        negative: Sequence[ToldPart],
    ) -> tuple[Parts, Parts]:
        """The parts of the prompts with the controls that steer them.

        Raises:
            UsageError: a range of steps, with a sampler that decides on its steps as it goes.
            DeviceError: out of memory.
        """
        if not controls and not self._attached:
            return tuple(prompt), tuple(negative)
        acting = [
            each
            for control in self.attach([each for each in controls if each.request.weight != 0.0])
            if (each := self._acting(control, options, path)) is not None
        ]
        opposed = [replace(each, control=each.negative) for each in acting if each.negative is not None]
        return steered(prompt, acting), steered(negative, opposed)

    def attach(self, controls: Sequence[OpenedControl]) -> Sequence[OpenedControl]:
        """Have the networks of these controls beside the model's, and no others."""
        wanted = {network_name(control.file): control.file for control in controls}
        for name in self._attached - wanted.keys():
            self.networks.detach(name)
        for name, file in wanted.items():
            self.networks.attach(name, file)
        self._attached = set(wanted)
        running = [name for name, file in wanted.items() if isinstance(file, ControlNetFile)]
        if running:  # they compute beside the U-Net at every step, and in its precision
            (unet, *_) = self.networks.together("unet", *running)
            for name in running:
                self.networks.in_precision(name, dtype_of(unet))
        return controls

    def clear(self) -> None:
        """Forget the encoded hints."""
        self._kept.clear()

    def _acting(self, control: OpenedControl, options: ResolvedOptions, path: SigmaSchedule) -> Acting | None:
        """A control at work; None where it acts at no step."""
        at = evaluations_of(control, options, path)
        if not any(at):
            return None
        alone = control.request.mode == "control"
        if isinstance(control.file, ImagePromptFile):
            made, opposed = self._images(control, control.file, options)
            return Acting(made, at, None if alone else opposed)
        made = self._made(control, options)
        pooled = isinstance(control.file, ControlNetFile) and control.file.config.pooled
        return Acting(made, at, None if alone or pooled else made)

    def _images(
        self, control: OpenedControl, file: ImagePromptFile, options: ResolvedOptions
    ) -> tuple[Control, Control]:
        """What an IP-Adapter says of its picture, and of none."""
        name, encoder = network_name(file), f"encoder {file.encoder.files.path}"
        black = convention_of(options.like).controls == "comfyui"
        key = (control, black, self.networks.precision(name))
        known = self._kept.pop(key, None)
        if known is None:
            self.networks.attach(encoder, file.encoder)
            self._attached.add(encoder)
            features = self._features(control, file, encoder, black)
            known = self._run_on(name, features, "__call__")
        self._keep(key, known)
        weight = torch.full((1,), control.request.weight, device=known[0].device)
        half = len(known) // 2

        def prompted(row: int) -> Control:
            rows = [tensor[row : row + 1] for tensor in known]
            return PromptedByImage(tuple(rows[:half]), tuple(rows[half:]), weight)

        return prompted(0), prompted(1)

    def _features(self, control: OpenedControl, file: ImagePromptFile, encoder: str, black: bool) -> Tensor:
        """What the encoder says of the picture, and of what stands for none: [2, …].

        For the classic adapter none is zeros; for the others it is the encoding of a picture of the mean
        colour (diffusers), or of a black one (ComfyUI).
        """
        side = file.encoder.config.side
        hint = make_hint(control.hint, control.request.preprocess)
        levels = torch.from_numpy(hint_levels(square(hint.convert("RGB"), side))).permute(2, 0, 1)[None]
        pixels = normalised(levels.to(self.networks.placement.device))
        if file.config.kind == "classic":
            (seen,) = self._run_on(encoder, pixels, "__call__")
            return torch.cat([seen, torch.zeros_like(seen)])
        none = torch.zeros_like(pixels)
        both = torch.cat([pixels, normalised(none) if black else none])
        return self._run_on(encoder, both, "hidden")[0]

    def _made(self, control: OpenedControl, options: ResolvedOptions) -> Control:
        name, request = network_name(control.file), control.request
        soft = request.mode != "balanced"
        match control.file:
            case ControlNetFile():
                (features,) = self._encoded(control, options, "encode_hint")
                net = self.networks[name]
                count = len(net.zero) + 1
                scales: tuple[float, ...] = ()
                if request.mode == "control" and options.like == "diffusers":
                    scales = () if net.config.pooled else guess_scales(count)
                elif soft:
                    scales = soft_scales(count)
                weight = torch.full((1,), request.weight, device=features.device)
                return HintedControlNet(net, features, weight, scales)
            case AdapterFile():
                levels = self._encoded(control, options, "__call__")
                scales = SOFT_SCALES if soft else (1.0,) * len(levels)
                return HintedAdapter(
                    tuple(
                        level * (request.weight * scale)
                        for level, scale in zip(levels, soft_to(scales, len(levels)), strict=True)
                    )
                )
            case _:
                raise TypeError(f"{control.file.title} is no control")

    def _encoded(self, control: OpenedControl, options: ResolvedOptions, method: str) -> tuple[Tensor, ...]:
        """What a network makes of a hint at the picture's size: computed once."""
        name = network_name(control.file)
        key = (control, options.width, options.height, self.networks.precision(name))
        known = self._kept.pop(key, None)
        if known is None:
            hint = hint_tensor(control, options.width, options.height).to(self.networks.placement.device)
            if control.file.config.hint_channels == 1:  # type: ignore[attr-defined]
                hint = hint.mean(1, keepdim=True)
            known = self._run_on(name, hint, method)
        self._keep(key, known)
        return known

    def _keep(self, key: tuple[Any, ...], known: tuple[Tensor, ...]) -> None:
        self._kept[key] = known
        for oldest in list(self._kept)[:-HINTS_KEPT]:
            del self._kept[oldest]

    def _run_on(self, name: str, given: Tensor, method: str) -> tuple[Tensor, ...]:
        """The method's tensors in float32, retried as `Networks.run` does."""
        several: list[Tensor] = []

        def compute(network: Any) -> Tensor:
            result = getattr(network, method)(given.to(dtype_of(network)))
            several[:] = [each.float() for each in (result if isinstance(result, tuple) else (result,))]
            return torch.cat([each.flatten() for each in several])

        self.networks.run(name, compute)
        if method != "encode_hint":  # a ControlNet goes on computing
            self.networks.done(name)
        return tuple(several)


def soft_to(scales: tuple[float, ...], count: int) -> tuple[float, ...]:
    """Scales for a network of another number of levels: the last ones, and before them the first again."""
    return scales[-count:] if count <= len(scales) else (scales[0],) * (count - len(scales)) + scales


def hint_tensor(control: OpenedControl, width: int, height: int) -> Tensor:
    """A hint as diffusers has it: brought to the picture's size by Lanczos' filter, [1, 3, H, W] in 0 to 1.

    What a preprocessor makes is made at that size. (Masked pixels of an inpainting hint are −1.)
    """
    levels = hint_levels(make_hint(control.hint, control.request.preprocess, (width, height)))
    return torch.from_numpy(levels).permute(2, 0, 1)[None]


def evaluations_of(control: OpenedControl, options: ResolvedOptions, path: SigmaSchedule) -> tuple[bool, ...]:
    """At which evaluations of the network a control acts.

    Raises:
        UsageError: it has a range, and the sampler decides on its steps as it goes.
    """
    start, end = control.request.start, control.request.end
    if (start, end) == (0.0, 1.0):
        return (True,)
    steps = len(path.timesteps)
    total = SAMPLERS[options.sampler].evaluations(steps, to_zero=path.sigmas[-1] == 0.0)
    if total is None:
        raise UsageError(
            f"{options.sampler} decides on its steps as it goes, so a control has no start= and end= there; "
            "leave them out, or take another sampler"
        )
    counted = convention_of(options.like).controls
    timesteps = [path.timesteps[min(number * steps // total, steps - 1)] for number in range(total)]
    return tuple(
        acts(start, end, number, total, timestep, counted) for number, timestep in enumerate(timesteps)
    )


def acts(start: float, end: float, evaluation: int, total: int, timestep: float, counted: str) -> bool:
    """Whether a control of a range acts at an evaluation, as a tool counts.

    Args:
        evaluation: from 0, of `total`.
        timestep: where the noise is, 0 to 999.
        counted: diffusers: an evaluation that lies wholly within; webui: one that begins there, ends
            included; comfyui: by the timestep.
    """
    if counted == "comfyui":
        return (1.0 - end) * LAST_TIMESTEP <= timestep <= (1.0 - start) * LAST_TIMESTEP
    if counted == "webui":
        return start <= evaluation / total <= end
    return not (evaluation / total < start or (evaluation + 1) / total > end)
