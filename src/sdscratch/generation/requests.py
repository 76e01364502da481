"""What is asked of `generate`, and what it answers: requests, and events.

A request is one picture's worth, wherever it comes from: a command, a line of a plan, a call from Python.
No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from PIL.Image import Image

from sdscratch.addons.control import OpenedControl
from sdscratch.errors import SdscratchError
from sdscratch.images import AddonRecord, Record, Repaint, TemplateRecord
from sdscratch.options import Fit, ResolvedOptions, numbered_seeds

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Advanced",
    "Event",
    "Failed",
    "Init",
    "Picture",
    "Progress",
    "Request",
    "Stage",
    "Started",
    "Towards",
    "numbered",
]

Stage = Literal["load", "encode", "denoise", "decode"]


@dataclass(frozen=True, eq=False)
class Init:
    """The picture that image-to-image starts from.

    Attributes:
        image: RGB, of exactly the options' size.
        fit: how it was brought to that size.
        hash: `images.picture_hash` of the picture as it was read, before that; with its transparency, where
            a part of it is repainted.
        background: the colour under its transparent parts, and of borders.
        upscaler: what enlarged it first, if something did: a file, or a filter, which has no hash.
        enlarge_by: the upscaler that is still to bring it to the options' size.
        repaint: what of it is repainted; None: all.
    """

    image: Image
    fit: Fit | None = None
    hash: str | None = None
    background: str = "white"
    upscaler: AddonRecord | None = None
    repaint: Repaint | None = None
    enlarge_by: str | None = None


@dataclass(frozen=True)
class Towards:
    """Another prompt, which a picture is on the way to.

    Attributes:
        prompt: without LoRAs' tags.
        share: of it, 0 to 1; what is left is the picture's own prompt's.
    """

    prompt: str
    share: float


@dataclass(frozen=True)
class Request:
    """One picture's worth.

    Attributes:
        template: where its prompts came from, if they had wildcards.
        towards: where the picture is one of a film's, between two prompts.
        variants: others that begin alike are drawn before or after it: what they share is computed once.
    """

    options: ResolvedOptions
    init: Init | None = None
    controls: tuple[OpenedControl, ...] = ()
    template: TemplateRecord | None = None
    towards: Towards | None = None
    variants: bool = False

    def joins(self, first: Request) -> bool:
        """Whether both can be drawn at once: all but the seeds is the same."""
        own = first.options
        same = replace(self.options, seed=own.seed, variation_seed=own.variation_seed)
        beside = self.controls == first.controls and self.towards == first.towards
        return self.init is first.init and beside and same == own


def numbered(request: Request, count: int) -> Iterator[Request]:
    """`count` requests like this one, of seeds `seed`, `seed` + 1, …; of variations, theirs count up."""
    own = request.options
    for index in range(count):
        options = replace(own, **numbered_seeds(own.seed, own.variation_seed, index))  # type: ignore[arg-type]
        yield replace(request, options=options)


@dataclass(frozen=True)
class Started:
    """A stage began.

    Attributes:
        stage: what is done now.
        total: of how many units it consists; None where that cannot be known.
        first: the number of the batch's first picture, or where `count` is 1 of the picture, from 0.
        count: how many pictures it is for.
    """

    stage: Stage
    total: float | None
    first: int
    count: int


@dataclass(frozen=True)
class Advanced:
    """How many of its units the stage has done; 0 where it begins anew."""

    done: float


@dataclass(frozen=True)
class Progress:
    """How far the denoising is.

    `latent` is what the decoder takes when `done == total`; before, it is noisy, in σ-space
    (x = x₀ + σ·noise). `denoised` is the picture that the network sees in it so far (None before the
    first step), which the decoder takes too.
    """

    done: int
    total: int
    latent: Tensor  # [n, c, h, w] float32
    denoised: Tensor | None


@dataclass(frozen=True)
class Picture:
    """A picture is there.

    Attributes:
        index: its number, from 0, in the order of the requests.
        image: RGB.
        record: what is to be known of it; the first one of a model waits for the model's hash.
        timings: seconds by stage, of the newest batch.
    """

    index: int
    request: Request
    image: Image
    record: Callable[[], Record]
    timings: Mapping[str, float]


@dataclass(frozen=True)
class Failed:
    """Pictures that could not be drawn; those that follow are tried all the same."""

    index: int  # the first one's number
    requests: tuple[Request, ...]
    error: SdscratchError


Event = Started | Advanced | Progress | Picture | Failed
