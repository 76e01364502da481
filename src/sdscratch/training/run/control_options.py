"""What can be asked of `train control` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdscratch.errors import UsageError
from sdscratch.settings import setting
from sdscratch.training.run.options import DATA, MODEL, OUTPUT, RATE, DenoisingOptions

__all__ = ["KINDS", "ControlOptions"]

KINDS = ("controlnet", "t2i-adapter", "t2i-adapter-light")


@dataclass(frozen=True)
class ControlOptions(DenoisingOptions):
    """What `train control` can be asked; some defaults are other ones."""

    model: str | None = setting(
        "default",
        "Model that the control is for, and that stays as it is: a file, a folder, a name, or a hub id.",
        MODEL,
        default="the built-in model",
    )
    kind: Literal["controlnet", "t2i-adapter", "t2i-adapter-light"] = setting(
        "controlnet",
        "Kind of control: a ControlNet, which runs at every step, or a T2I-Adapter, which runs once.",
        MODEL,
    )
    preprocess: str | None = setting(
        None,
        "Preprocessor that makes each picture's hint, as of --control: canny, scribble, … (docs/control.md).",
        DATA,
        metavar="NAME",
    )
    hints: str | None = setting(
        None,
        "Folder of hints, instead of a preprocessor: each is called and framed as its picture in DATA.",
        DATA,
        metavar="FOLDER",
    )
    hint_channels: int = setting(
        3, "Channels of a hint: 3, or 1 where colours say nothing.", MODEL, low=1, high=3
    )
    learning_rate: float | None = setting(
        None, "Learning rate after the warm-up, the highest.", RATE, low=0, high=10, default="1e-4"
    )
    use_ema: bool | None = setting(
        False, "Keep a moving average of the weights (EMA), which is the result.", RATE
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "Precision that the control's file is written in.", OUTPUT, default="auto: float16"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.preprocess is None) == (self.hints is None):
            raise UsageError(
                "say where hints come from: either --preprocess NAME, which makes them of the pictures, or "
                "--hints FOLDER"
            )
        if self.hint_channels == 2:
            raise UsageError("--hint-channels is 2, but must be 1 or 3")
        if self.preprocess is not None:
            from sdscratch.images.hints import parse_preprocessor  # numpy: not for the help alone

            if parse_preprocessor(self.preprocess)[0] == "inpaint":
                raise UsageError("--preprocess inpaint needs a mask beside each picture; give --hints FOLDER")
