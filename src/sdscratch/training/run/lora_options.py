"""What can be asked of `train lora`, and the plan it makes: rank, alpha, which layers change (no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.errors import UsageError
from sdscratch.models.config import ModelConfig
from sdscratch.settings import setting
from sdscratch.training.run.options import MODEL, OUTPUT, RATE, DenoisingOptions

__all__ = ["MAX_RANK", "TARGETS", "LoraOptions", "LoraPlan", "parse_targets"]

# What can be changed: the ends of our modules' names. The U-Net's first and last layer and the time embedding
# are left alone: diffusers has no place for them in kohya's naming.
TARGETS: Mapping[str, re.Pattern[str]] = {
    "attention": re.compile(r"attention\.(query|key|value|out)"),
    "feed-forward": re.compile(r"(feed_forward|layers\.\d+)\.(expand|contract)"),
    "convolution": re.compile(r"\.(conv|conv1|conv2|skip|project_in|project_out)"),
}
MAX_RANK = 1024


@dataclass(frozen=True)
class LoraPlan:
    """The shape of a LoRA.

    Raises:
        UsageError: a value out of its range.
    """

    rank: int = 4
    alpha: float | None = None  # the change is multiplied by alpha / rank; None is rank: by 1
    targets: tuple[str, ...] = ("attention",)  # keys of TARGETS
    text_encoder: bool = False  # change it, too

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise UsageError(
                f"the rank of a LoRA is {self.rank}, but must be 1 to {MAX_RANK}; 4 to 32 are usual"
            )
        if not 0 < self.scale <= MAX_RANK:
            raise UsageError(
                f"a LoRA's alpha is {self.alpha}, but must be above 0; half the rank or all is usual"
            )
        if not self.targets or set(self.targets) - TARGETS.keys():
            asked = ",".join(self.targets)
            raise UsageError(f"the targets of a LoRA are {asked!r}, but must be some of {', '.join(TARGETS)}")

    @property
    def scale(self) -> float:
        """What the product of both matrices is multiplied by, alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def chosen(self, config: ModelConfig) -> list[Weight]:
        """The weights of a model that are changed, in the model's order."""
        parts = ("text", "unet") if self.text_encoder else ("unet",)
        ends = re.compile(f".*({'|'.join(TARGETS[name].pattern for name in self.targets)})\\.weight")
        return [w for w in weights(config) if w.part in parts and ends.fullmatch(w.name)]


def parse_targets(text: str) -> tuple[str, ...]:
    """`attention,feed-forward` as a plan takes it, in the order of TARGETS; `all` is all of them.

    Raises:
        UsageError: an unknown name, or none.
    """
    words = {word.strip() for word in text.split(",")}
    asked: Iterable[str] = TARGETS if words == {"all"} else words
    return LoraPlan(targets=tuple(sorted(asked, key=[*TARGETS, *sorted(words)].index))).targets


@dataclass(frozen=True)
class LoraOptions(DenoisingOptions):
    """What `train lora` can be asked; some defaults are other ones."""

    model: str | None = setting(
        "default",
        "Model that the LoRA is for: a file, a folder, a name, or a hub id.",
        MODEL,
        default="the built-in model",
    )
    rank: int = setting(4, "Rank of a layer's two matrices; 4 to 32 are usual.", MODEL, low=1, high=MAX_RANK)
    lora_alpha: float | None = setting(
        None,
        "Scale of the changes: each is multiplied by alpha / rank.",
        MODEL,
        low=0,
        high=MAX_RANK,
        default="the rank",
    )
    lora_targets: str = setting(
        "attention",
        f"Layers that change: {', '.join(TARGETS)}, joined by commas; or all.",
        MODEL,
        metavar="NAMES",
    )
    train_text_encoder: bool = setting(False, "Change the text encoder, too.", MODEL)
    learning_rate: float | None = setting(
        None, "Learning rate after the warm-up, the highest.", RATE, low=0, high=10, default="1e-4"
    )
    use_ema: bool | None = setting(
        False, "Keep a moving average of the weights (EMA), which is the result.", RATE
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "Precision that the LoRA's file is written in.", OUTPUT, default="auto: float32"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.plan

    @property
    def plan(self) -> LoraPlan:
        """The shape of the LoRA.

        Raises:
            UsageError: it makes no sense.
        """
        targets = parse_targets(self.lora_targets)
        return LoraPlan(self.rank, self.lora_alpha, targets, self.train_text_encoder)
