"""How controls are asked for: `FILE,image=PATH[,weight=W][,start=S][,end=E][,mode=M][,preprocess=NAME]`.

No torch. A comma that belongs to a path is doubled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from sdscratch.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MODES", "ControlRequest", "Mode", "parse_control"]

Mode = Literal["balanced", "prompt", "control"]
MODES: tuple[str, ...] = get_args(Mode)
KEYS = ("image", "weight", "start", "end", "mode", "preprocess", "encoder")
HOW = "say FILE,image=PATH, like canny.safetensors,image=edges.png,weight=0.8"


@dataclass(frozen=True)
class ControlRequest:
    """A control as it was asked for.

    Attributes:
        name: a file, a diffusers folder, or a name (`places.find_control`).
        image: the hint: a file, or from Python a picture.
        weight: what it adds is multiplied by this.
        start: the share of the steps after which it begins, 0 to 1.
        end: the share of the steps after which it ends.
        mode: balanced; prompt: the prompt counts more, by soft weights; control: the control counts more, by
            soft weights where the prompt is read, and none where the negative one is.
        preprocess: what makes the hint of the picture (`images.hints`); None: it is one.
        encoder: an IP-Adapter's image encoder: a file, a folder or a name; None: it lies beside the adapter.
    """

    name: str
    image: str | Image
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: Mode = "balanced"
    preprocess: str | None = None
    encoder: str | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: a value out of its range.
        """
        where = f"the control {self.name}"
        if not math.isfinite(self.weight):
            raise UsageError(f"{where} has the weight {self.weight}, which is no number; 1 is full strength")
        if not 0.0 <= self.start < self.end <= 1.0:
            raise UsageError(
                f"{where} goes from {self.start:g} to {self.end:g}; start and end are shares of the steps, "
                "0 to 1, and start comes first"
            )
        if self.preprocess is not None:
            from sdscratch.images.hints import parse_preprocessor  # numpy: not for the help alone

            parse_preprocessor(self.preprocess)
        if self.mode not in MODES:
            raise UsageError(f"{where} has the mode {self.mode!r}, but must have one of {', '.join(MODES)}")


def parse_control(text: str) -> ControlRequest:
    """The meaning of `FILE,image=PATH,…`.

    Raises:
        UsageError: no file, no image, or something that makes no sense.
    """
    name, *items = (item.replace("\0", ",") for item in text.replace(",,", "\0").split(","))
    if not name:
        raise UsageError(f"the control {text!r} names no file; {HOW}")
    values: dict[str, Any] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or key not in KEYS:
            raise UsageError(
                f"the control {name} says {item!r}, but may say {', '.join(f'{key}=' for key in KEYS)}; "
                "a comma in a path is written twice"
            )
        if key in values:
            raise UsageError(f"the control {name} says {key}= twice; say it once")
        if not value:
            raise UsageError(f"the control {name} says {key}= and nothing behind it")
        values[key] = number(name, key, value) if key in ("weight", "start", "end") else value
    if "image" not in values:
        raise UsageError(f"the control {name} has no image=, the hint that it follows; {HOW}")
    return ControlRequest(name, **values)


def number(name: str, key: str, value: str) -> float:
    """A value that is to be a number."""
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"the control {name} says {key}={value}, which is no number") from None
