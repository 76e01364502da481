"""3×3 convolutions with 16 products where the definition takes 36 (Lavin and Gray 2016, section 4.1).

Four outputs Y, two by two, come of a tile d of 4×4 inputs and the kernel g; ⊙ multiplies number by number:

    Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

    Bᵀ = ⎡1  0 −1  0⎤   G = ⎡1   0  0⎤   Aᵀ = ⎡1  1  1  0⎤
         ⎢0  1  1  0⎥       ⎢½   ½  ½⎥        ⎣0  1 −1 −1⎦
         ⎢0 −1  1  0⎥       ⎢½  −½  ½⎥
         ⎣0  1  0 −1⎦       ⎣0   0  1⎦

A is linear, so that channels are summed before it: ⊙ becomes 16 matrix products over the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Scratch", "WinogradConv"]

G = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
CACHED = 2**22  # numbers in the tiles worked on at once: of more, the caches lose some between the steps


class Scratch:
    """Memory in which one after another works: allocated once, its pages are neither zeroed again nor lost
    between those of results."""

    def __init__(self) -> None:
        self.memory = torch.empty(0)

    def take(self, like: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Tensors of these shapes, of the type of `like` and of any content, until the next call."""
        sizes = [prod(shape) for shape in shapes]
        if self.memory.numel() < sum(sizes) or self.memory.dtype != like.dtype:
            self.memory = like.new_empty(sum(sizes))
        parts = self.memory[: sum(sizes)].split(sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


class WinogradConv(nn.Module):
    """An `nn.Conv2d` of 3×3 with stride 1 and padding 1, computed as above.

    In float32 it is more exact than the plain one, since fewer numbers are summed. In bfloat16 tiles and
    products are rounded on their way: its error is some 2.2 times that of the plain one, whose result alone
    is rounded. Its weights take 16/9 of the room.

    Args:
        scratch: for what lies between the steps; shared by convolutions that are computed in turn.
    """

    padding = (1, 1)

    def __init__(self, plain: nn.Conv2d, scratch: Scratch) -> None:
        super().__init__()
        self.scratch = scratch
        kernel = plain.weight.detach()
        transformed = torch.einsum("ai,bj,ocij->abco", G, G, kernel.float())
        self.weight = nn.Parameter(transformed.to(kernel.dtype), requires_grad=False)
        self.bias = plain.bias

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, h, w], channels last in memory."""
        n, _, height, width = x.shape
        inputs, outputs = self.weight.shape[2:]
        down, right = (height + 1) // 2, (width + 1) // 2  # tiles
        y = x.new_empty(n, down, 2, right, 2, outputs)
        most = max(1, CACHED // (16 * n * right * max(inputs, outputs)))
        for top in range(0, down, most):
            end = min(top + most, down)
            above, below = 2 * top - 1, 2 * end + 1  # the rows seen: from, up to
            seen = x[:, :, max(above, 0) : below].permute(0, 2, 3, 1)
            zeros = (0, 0, 1, 1 + width % 2, int(top == 0), max(below - height, 0))
            self._some_rows(F.pad(seen, zeros), y[:, top:end])
        return y.view(n, 2 * down, 2 * right, outputs)[:, :height, :width].permute(0, 3, 1, 2)

    def _some_rows(self, d: Tensor, y: Tensor) -> None:
        """Inputs [n, 2·rows + 2, 2·right + 2, inputs] → outputs in y, [n, rows, 2, right, 2, outputs]."""
        n, rows, _, right, _, outputs = y.shape
        inputs = d.shape[3]
        half, tiles, products = self.scratch.take(
            d,
            (4, n, rows, d.shape[2], inputs),
            (4, 4, n, rows, right, inputs),
            (16, n * rows * right, outputs),
        )
        _transform([d[:, i : i + 2 * rows - 1 : 2] for i in range(4)], half)  # Bᵀ d
        _transform([half[:, :, :, i : i + 2 * right - 1 : 2] for i in range(4)], tiles.transpose(0, 1))  # … B
        torch.bmm(tiles.view(16, -1, inputs), self.weight.view(16, inputs, outputs), out=products)
        m = products.view(4, 4, n, rows, right, outputs)
        if self.bias is not None:
            m[1, 1] += self.bias  # A hands this one to all four outputs
        _sums(m.unbind(), to=m.unbind())  # Aᵀ m: the first two are it
        for row in (0, 1):
            _sums(m[row].unbind(), to=y[:, :, row].unbind(3))  # … A


def _transform(d: Sequence[Tensor], to: Tensor) -> None:
    """Bᵀ d, of four rows or columns."""
    torch.sub(d[0], d[2], out=to[0])
    torch.add(d[1], d[2], out=to[1])
    torch.sub(d[2], d[1], out=to[2])
    torch.sub(d[1], d[3], out=to[3])


def _sums(m: Sequence[Tensor], to: Sequence[Tensor]) -> None:
    """Aᵀ m, of four rows or columns; m is used up."""
    torch.add(m[0].add_(m[1]), m[2], out=to[0])
    torch.sub(m[1].sub_(m[2]), m[3], out=to[1])
