"""Looking at networks while they compute: hooks that summarise tensors as they pass by.

The networks are those of every day, in the forms that run fastest; they know of nothing, and compute what
they always compute. Shapes: t tokens or positions, s tokens of context, c channels, h × w positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Attentions", "BlockOutput", "DecoderWatch", "EncoderWatch", "TextWatch", "UNetWatch", "summary"]

SHOWN_CHANNELS = 4  # of a block's output
LONGEST_SIDE = 32  # of the small pictures of these channels
ROWS_KEPT = 16  # rows of the text encoder that attention is kept of


@dataclass(frozen=True, eq=False)
class BlockOutput:
    """What is kept of a tensor that a block gave.

    Attributes:
        shape: (c, h, w).
        rms: the root of the mean of its squares.
        channels: which of its channels are shown: those that vary most over the picture.
        maps: [k, h', w'] float32, those channels, averaged down to at most 32 positions a side.
    """

    shape: tuple[int, int, int]
    rms: float
    channels: tuple[int, ...]
    maps: Tensor


def summary(x: Tensor, channels: tuple[int, ...] | None = None) -> BlockOutput:
    """A tensor [c, h, w] in short.

    Args:
        channels: which to show; None chooses those that vary most.
    """
    x = x.float()
    if channels is None:
        spread = x.flatten(1).std(1, correction=0)
        most = spread.topk(min(SHOWN_CHANNELS, len(spread))).indices
        channels = tuple(sorted(int(each) for each in most))
    maps = x[list(channels)]
    longest = max(maps.shape[1:])
    if longest > LONGEST_SIDE:
        size = [max(1, round(side * LONGEST_SIDE / longest)) for side in maps.shape[1:]]
        maps = nn.functional.interpolate(maps[None], size=size, mode="area")[0]
    rms = float(x.square().mean().sqrt())
    c, h, w = x.shape
    return BlockOutput((c, h, w), rms, channels, maps.cpu().clone())


def attention_weights(query: Tensor, key: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """softmax(QKᵀ/√d) of every head (Vaswani et al. 2017, eq. 1): [t, c] and [s, c] → [heads, t, s]."""
    q, k = (x.float().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query, key))
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    weights: Tensor = scores.softmax(-1)
    return weights


class TextWatch:
    """Looks at a text encoder: what it read, what it said, and where each head of each layer looked."""

    def __init__(self) -> None:
        self.contexts: dict[tuple[int, ...], Tensor] = {}  # [t, c] by ids
        self.attentions: dict[tuple[int, ...], list[Tensor]] = {}  # a layer each: [heads, t, t] float16
        self._rows: list[tuple[int, ...]] = []

    def attach(self, network: nn.Module) -> list[RemovableHandle]:
        """Look at a text encoder; what is removed to look away."""
        mixes = (layer.get_submodule("attention.mix") for layer in network.get_submodule("layers").children())
        return [
            network.register_forward_pre_hook(self._begin, with_kwargs=True),
            *(mix.register_forward_pre_hook(self._attend) for mix in mixes),
            network.register_forward_hook(self._end),
        ]

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...], others: dict[str, Any]) -> None:
        plain = others.get("hidden") is None  # with hidden tokens, attention runs in another way
        ids: Tensor = inputs[0]
        self._rows = [tuple(row) for row in ids.tolist()] if plain else []
        for row in self._rows:
            if row in self.attentions or len(self.attentions) < ROWS_KEPT:
                self.attentions[row] = []

    def _attend(self, mix: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        heads = int(mix.heads)  # type: ignore[arg-type]
        for row, query, key in zip(self._rows, inputs[0], inputs[1], strict=False):
            if row in self.attentions:
                weights = attention_weights(query, key, heads, causal=True)
                self.attentions[row].append(weights.half().cpu())

    def _end(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        for row, context in zip(self._rows, output, strict=False):
            self.contexts[row] = context.float().cpu().clone()
        self._rows = []


class Attentions:
    """Where words look: cross-attention of one pass through a U-Net, by resolution.

    Heads and the layers of a resolution are averaged; the tokens of a word are added up, so that a position's
    weights still sum to one (Tang et al. 2022, section 3, who add up the heads and layers likewise).

    Args:
        words: [s, words], which tokens of the context belong to which word: ones and zeros.
    """

    def __init__(self, words: Tensor) -> None:
        self.words = words
        self._sums: dict[int, tuple[Tensor, int]] = {}  # by positions: sums of [words, t], and of how many

    def add(self, query: Tensor, key: Tensor, heads: int) -> None:
        """One layer of one picture: [t, c] and [s, c]."""
        words = self.words.to(query.device)
        total = torch.zeros(query.shape[0], words.shape[1], device=query.device)
        q, k = (x.float().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query, key))
        for one, other in zip(q, k, strict=True):  # head by head: of all at once, memory would be eightfold
            total += (one @ other.T * one.shape[-1] ** -0.5).softmax(-1) @ words
        known, count = self._sums.get(query.shape[0], (torch.zeros_like(total), 0))
        self._sums[query.shape[0]] = known + total / heads, count + 1

    def maps(self, aspect: tuple[int, int]) -> dict[tuple[int, int], Tensor]:
        """[words, h, w] float32 by (h, w), the finest first.

        Args:
            aspect: the latent's (h, w), which the sides of every resolution come from.
        """
        found = {}
        for positions, (total, count) in sorted(self._sums.items(), reverse=True):
            h, w = sides(positions, aspect)
            found[h, w] = (total / count).T.unflatten(1, (h, w)).cpu()
        return found


def sides(positions: int, aspect: tuple[int, int]) -> tuple[int, int]:
    """The (h, w) of so many positions of a latent of this (h, w), which was halved several times, rounded up.

    Raises:
        ValueError: there is no such size.
    """
    h, w = aspect
    while h * w > positions:
        h, w = -(-h // 2), -(-w // 2)
    if h * w != positions:
        raise ValueError(f"{positions} positions are no halving of {aspect}")
    return h, w


@dataclass
class UNetWatch:
    """Looks at a U-Net: what every block gives, and where words look, while it is armed.

    Attributes:
        row: which of the batch's rows to look at.
        attentions: what takes the cross-attention; None while nothing is to be looked at.
        outputs: of the newest pass, by the block's name ("down.3.1"), in the order of the computation.
    """

    row: int = 0
    attentions: Attentions | None = None
    outputs: dict[str, BlockOutput] = field(default_factory=dict)
    _channels: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def attach(self, network: nn.Module) -> list[RemovableHandle]:
        """Look at a U-Net; what is removed to look away."""
        handles = []
        for part in ("down", "middle", "up"):
            for group, blocks in enumerate(network.get_submodule(part).children()):
                for number, block in enumerate(blocks.children()):
                    handles.append(block.register_forward_hook(self._output(f"{part}.{group}.{number}")))
        for name, module in network.named_modules():
            if name.endswith("cross_attention.mix"):
                handles.append(module.register_forward_pre_hook(self._attend))
        return handles

    def begin(self, row: int, attentions: Attentions) -> None:
        """Look at the next pass."""
        self.row, self.attentions, self.outputs = row, attentions, {}

    def end(self) -> None:
        """Look away."""
        self.attentions = None

    def _output(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if self.attentions is None:
                return
            x = output[min(self.row, len(output) - 1)]  # half a batch stands for both halves
            self.outputs[name] = summary(x, self._channels.get(name))
            self._channels.setdefault(name, self.outputs[name].channels)

        return look

    def _attend(self, mix: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.attentions is None:
            return
        query, key = inputs[0], inputs[1]
        if key.shape[1] == len(self.attentions.words):  # others look at something else than the prompt
            self.attentions.add(query[self.row], key[self.row], int(mix.heads))  # type: ignore[arg-type]


class DecoderWatch:
    """Looks at a decoder: what each of its levels gives, from latent to pixels."""

    def __init__(self) -> None:
        self.levels: dict[str, BlockOutput] = {}  # of the newest pass
        self.passes = 0  # more than one, where it decodes in tiles

    def attach(self, network: nn.Module) -> list[RemovableHandle]:
        """Look at a decoder; what is removed to look away."""
        levels = decoder_levels(network).items()
        return [
            network.register_forward_pre_hook(self._begin),
            *(module.register_forward_hook(self._level(name)) for name, module in levels),
        ]

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self.levels = {}
        self.passes += 1

    def _level(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.levels[name] = summary(output[0])

        return look


def decoder_levels(network: nn.Module) -> Mapping[str, nn.Module]:
    """Where to look at a decoder: by the name of what has been computed there."""
    found = {"conv_in": network.get_submodule("conv_in"), "middle": network.get_submodule("middle")}
    for index, level in enumerate(network.get_submodule("up").children()):
        resample = getattr(level, "resample", None)
        found[f"up.{index}"] = resample or list(level.get_submodule("blocks").children())[-1]
    return found


class EncoderWatch:
    """Looks at an encoder: the posterior of the first picture that it is given."""

    def __init__(self) -> None:
        self.mean: Tensor | None = None  # [c, h, w], before the latent scale
        self.log_variance: Tensor | None = None

    def attach(self, network: nn.Module) -> list[RemovableHandle]:
        """Look at an encoder; what is removed to look away."""
        return [network.register_forward_hook(self._posterior)]

    def _posterior(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.mean is None:  # those that a preview is fitted to come later
            self.mean = output.mean[0].float().cpu().clone()
            self.log_variance = output.log_variance[0].float().cpu().clone()
