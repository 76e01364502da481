"""What steers a U-Net from beside it: ControlNets and adapters, through one seam.

Shapes: n pictures, c channels, h × w latent positions, t tokens, d numbers a token.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Attended", "Context", "Control", "OnRows", "Residuals", "SteeredContext", "stacked"]


@dataclass(frozen=True, eq=False)
class Attended:
    """What cross-attentions attend to beside the prompt, in the order of their numbers.

    Attributes:
        keys: [1|n, t, width] each.
        values: the same.
        weight: [1|n], of what comes of it.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    weight: Tensor


@dataclass(frozen=True, eq=False)
class SteeredContext:
    """A prompt's context, and what is attended to beside it.

    Attributes:
        text: [n, t, d].
    """

    text: Tensor
    attended: tuple[Attended, ...]

    def __len__(self) -> int:
        """Rows."""
        return len(self.text)


Context = Tensor | SteeredContext


@dataclass(frozen=True)
class Residuals:
    """What is added to a U-Net's features at one step; what a control leaves alone is None or ().

    Attributes:
        skips: one for each skip, in the order in which the way down makes them (SD 1.x: 12), added to the
            skip where the way up takes it (ControlNet: Zhang et al. 2023, section 3.2).
        middle: added to what the middle gives (ibid.).
        levels: one for each level of the way down, added to its last features before they are halved, and so
            to the skip that they are as well (T2I-Adapter: Mou et al. 2023, eq. 2).
        attended: what cross-attentions attend to besides (IP-Adapter: Ye et al. 2023, eq. 5).
    """

    skips: tuple[Tensor, ...] = ()
    middle: Tensor | None = None
    levels: tuple[Tensor, ...] = ()
    attended: tuple[Attended, ...] = ()

    def __add__(self, other: Residuals) -> Residuals:
        """What two controls add together."""
        return Residuals(
            _sums(self.skips, other.skips),
            _sum(self.middle, other.middle),
            _sums(self.levels, other.levels),
            self.attended + other.attended,
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> Residuals:
        """Every tensor changed."""
        return Residuals(
            tuple(map(change, self.skips)),
            None if self.middle is None else change(self.middle),
            tuple(map(change, self.levels)),
            tuple(
                Attended(tuple(map(change, a.keys)), tuple(map(change, a.values)), change(a.weight))
                for a in self.attended
            ),
        )

    def onto_context(self, context: Tensor) -> Context:
        """The prompt's context, with what is attended to beside it."""
        return SteeredContext(context, self.attended) if self.attended else context

    def onto_skip(self, skip: Tensor, index: int) -> Tensor:
        """A skip with what is added to it; a new tensor, for the way down may still need the old one."""
        return skip + self.skips[index] if self.skips else skip

    def onto_middle(self, x: Tensor) -> Tensor:
        """The middle's features with what is added to them."""
        return x if self.middle is None else x + self.middle

    def onto_level(self, x: Tensor, level: int | None) -> Tensor:
        """A group's features with what is added to them; `level` is the one that ends there, if one does."""
        return x + self.levels[level] if self.levels and level is not None else x


class Control(Protocol):
    """A network beside the U-Net, with its hint and its weight.

    It is a value: what it computes follows from its network and its tensors alone, so that a computation with
    it can be recorded and played back with other tensors. Its weight is a tensor, too, of one number a row.
    """

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Hint, weight, and whatever else differs from call to call; each has 1 or n rows."""
        ...

    @property
    def network(self) -> Hashable:
        """What computes; two controls of one network differ in their tensors alone."""
        ...

    def with_tensors(self, tensors: Sequence[Tensor]) -> Self:
        """The same control of other tensors, in the order of `tensors`."""
        ...

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        """Compute.

        Args:
            x: [n, c, h, w], the noisy latent without the channels that `Conditioning.concat` adds.
            timesteps: [n] float32.
            context: [n, t, d].
        """
        ...


@dataclass(frozen=True, eq=False)
class OnRows:
    """A control that steers some rows of a batch: the others cost nothing, and get zeros.

    Args:
        control: with tensors of all rows, of which the others' mean nothing.
        first: the first row that it steers.
        last: the one behind the last.
    """

    control: Control
    first: int
    last: int

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The control's."""
        return self.control.tensors

    @property
    def network(self) -> Hashable:
        """The control's, and the rows."""
        return self.control.network, self.first, self.last

    def with_tensors(self, tensors: Sequence[Tensor]) -> OnRows:
        """The same control of other tensors, on the same rows."""
        return replace(self, control=self.control.with_tensors(tensors))

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        """As of `Control`."""
        rows = slice(self.first, self.last)
        own = self.control.with_tensors([tensor[rows] for tensor in self.control.tensors])
        before, behind = self.first, len(x) - self.last

        def widened(added: Tensor) -> Tensor:
            added = added.expand(self.last - self.first, *added.shape[1:])
            return F.pad(added, (0, 0) * (added.dim() - 1) + (before, behind))

        return own(x[rows], timesteps[rows], context[rows]).each(widened)


def stacked(parts: Sequence[tuple[int, tuple[Control, ...]]]) -> tuple[Control, ...]:
    """The controls of several batches as those of one batch, in which the first comes first.

    Args:
        parts: each batch's rows, and its controls.

    Raises:
        ValueError: a control steers batches between which there is one that it does not.
    """
    held: dict[Hashable, dict[int, Control]] = {}  # by network: which part has which control
    for index, (_, controls) in enumerate(parts):
        met: dict[Hashable, int] = {}
        for control in controls:
            network = control.network
            met[network] = met.get(network, 0) + 1  # one network may be there twice, with two hints
            held.setdefault((network, met[network]), {})[index] = control
    return tuple(_joined([rows for rows, _ in parts], have) for have in held.values())


def _joined(rows: Sequence[int], have: dict[int, Control]) -> Control:
    """One network's controls as one; parts without it are filled with any tensors of its shapes."""
    some = next(iter(have.values()))
    sets = [have.get(index, some).tensors for index in range(len(rows))]
    tensors = [
        torch.cat([tensor if index in have else tensor[:1].expand(rows[index], *tensor.shape[1:])
                   for index, tensor in enumerate(each)])
        for each in zip(*sets, strict=True)
    ]  # fmt: skip
    whole = some.with_tensors(tensors)
    if len(have) == len(rows):
        return whole
    first, last = min(have), max(have) + 1
    if last - first != len(have):
        raise ValueError("a control steers parts of a batch that do not follow each other")
    return OnRows(whole, sum(rows[:first]), sum(rows[:last]))


def _sum(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return y if x is None else x if y is None else x + y


def _sums(xs: tuple[Tensor, ...], ys: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x + y for x, y in zip(xs, ys, strict=True)) if xs and ys else xs or ys
