"""ggml's quantised types: blocks of numbers that share a scale, and what they stand for in float32.

Of 32 numbers (q the stored one, d the scale, m the least; both float16):

    Q4_0  d, 16 bytes of two q each               d·(q − 8)
    Q4_1  d, m, 16 bytes                          d·q + m
    Q5_0  d, 4 bytes of the fifth bits, 16 bytes  d·(q − 16)
    Q5_1  d, m, 4 bytes, 16 bytes                 d·q + m
    Q8_0  d, 32 bytes                             d·q

Of 256 numbers, whose parts of 16 or 32 have small scales s, and leasts n, of their own:

    Q2_K  s and n of 4 bits each, q of 2          d·s·q − m·n
    Q3_K  s of 6 bits, q of 3                     d·(s − 32)·(q − 4)
    Q4_K  s and n of 6 bits each, q of 4          d·s·q − m·n
    Q5_K  the same, q of 5                        d·s·q − m·n
    Q6_K  s of 8 bits, q of 6                     d·s·(q − 32)

Products are taken from left to right in float32, as ggml's own tools take them: values agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdscratch.tensorfiles.header import BLOCKS

__all__ = ["dequantised", "quantised_q8_0"]


def dequantised(data: Tensor, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Blocks as float32.

    Args:
        data: the tensor's bytes, [n] uint8.
        dtype: one of `header.BLOCKS`.
    """
    return WAYS[dtype](data.view(-1, BLOCKS[dtype][1])).reshape(shape)


def quantised_q8_0(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in Q8_0, [n] uint8; its last side is a multiple of 32.

    Every block's largest number becomes ±127, the others are rounded to the nearest, halves away from zero.
    """
    blocks = tensor.float().reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    inverse = torch.where(scale == 0, 0, 1 / scale)
    scaled = blocks * inverse
    rounded = scaled.abs().add(0.5).floor() * scaled.sign()
    return torch.cat([scale.half().view(torch.uint8), rounded.to(torch.int8).view(torch.uint8)], 1).flatten()


def _half(bytes: Tensor) -> Tensor:
    """Two bytes of each block as a float16, in float32: [n, 1]."""
    return bytes.contiguous().view(torch.float16).float()


def _shifted(bytes: Tensor, *shifts: int, mask: int) -> Tensor:
    """[n, k] → [n, len(shifts), k]: bits of every byte, from each shift on."""
    by = torch.tensor(shifts, dtype=torch.uint8)[:, None]
    return bytes[:, None, :].bitwise_right_shift(by).bitwise_and(mask)


def _nibbles(bytes: Tensor) -> Tensor:
    """16 bytes → 32 numbers: the lower halves, then the upper ones."""
    return _shifted(bytes, 0, 4, mask=15).flatten(1)


def _fifth(bytes: Tensor) -> Tensor:
    """4 bytes → 32 bits, the lowest of the first byte first."""
    return bytes[:, :, None].bitwise_right_shift(torch.arange(8, dtype=torch.uint8)).bitwise_and(1).flatten(1)


def _q4_0(b: Tensor) -> Tensor:
    return _half(b[:, :2]) * (_nibbles(b[:, 2:]).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return _half(b[:, :2]) * _nibbles(b[:, 4:]).float() + _half(b[:, 2:4])


def _q5_0(b: Tensor) -> Tensor:
    q = _nibbles(b[:, 6:]) | (_fifth(b[:, 2:6]) << 4)
    return _half(b[:, :2]) * (q.float() - 16)


def _q5_1(b: Tensor) -> Tensor:
    q = _nibbles(b[:, 8:]) | (_fifth(b[:, 4:8]) << 4)
    return _half(b[:, :2]) * q.float() + _half(b[:, 2:4])


def _q8_0(b: Tensor) -> Tensor:
    return _half(b[:, :2]) * b[:, 2:].contiguous().view(torch.int8).float()


def _q2_k(b: Tensor) -> Tensor:
    scales, q = b[:, :16], b[:, 16:80]
    d, m = _half(b[:, 80:82]), _half(b[:, 82:84])
    numbers = torch.cat([_shifted(part, 0, 2, 4, 6, mask=3) for part in q.split(32, 1)], 1)
    s, n = d * (scales & 15).float(), m * (scales >> 4).float()
    return s[:, :, None] * numbers.reshape(-1, 16, 16).float() - n[:, :, None]


def _q3_k(b: Tensor) -> Tensor:
    high, q, packed, d = b[:, :32], b[:, 32:96], b[:, 96:108], _half(b[:, 108:110])
    low = _shifted(packed[:, :8], 0, 4, mask=15).flatten(1)
    top = _shifted(packed[:, 8:], 0, 2, 4, 6, mask=3).flatten(1)
    s = d * ((low | (top << 4)).float() - 32)
    numbers = torch.cat([_shifted(part, 0, 2, 4, 6, mask=3) for part in q.split(32, 1)], 1)
    third = _shifted(high, *range(8), mask=1)
    return s[:, :, None] * ((numbers | (third << 2)).reshape(-1, 16, 16).float() - 4)


def _scales_of_6_bits(b: Tensor) -> tuple[Tensor, Tensor]:
    """12 bytes → 8 scales and 8 leasts, as Q4_K and Q5_K pack them."""
    first, second, third = b.split(4, 1)
    s = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], 1)
    n = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], 1)
    return s.float(), n.float()


def _q4_k(b: Tensor) -> Tensor:
    s, n = _scales_of_6_bits(b[:, 4:16])
    numbers = torch.cat([_shifted(part, 0, 4, mask=15) for part in b[:, 16:].split(32, 1)], 1)
    s, n = _half(b[:, :2]) * s, _half(b[:, 2:4]) * n
    return s[:, :, None] * numbers.float() - n[:, :, None]


def _q5_k(b: Tensor) -> Tensor:
    s, n = _scales_of_6_bits(b[:, 4:16])
    numbers = torch.cat([_shifted(part, 0, 4, mask=15) for part in b[:, 48:].split(32, 1)], 1)
    fifth = _shifted(b[:, 16:48], *range(8), mask=1)
    s, n = _half(b[:, :2]) * s, _half(b[:, 2:4]) * n
    return s[:, :, None] * (numbers | (fifth << 4)).float() - n[:, :, None]


def _q6_k(b: Tensor) -> Tensor:
    low, high = b[:, :128], b[:, 128:192]
    s = _half(b[:, 208:210]) * b[:, 192:208].contiguous().view(torch.int8).float()
    lower = torch.cat([_shifted(part, 0, 4, mask=15) for part in low.split(64, 1)], 1).reshape(-1, 8, 32)
    upper = torch.cat([_shifted(part, 0, 2, 4, 6, mask=3) for part in high.split(32, 1)], 1)
    q = (lower | (upper << 4)).reshape(-1, 16, 16)
    return s[:, :, None] * (q.float() - 32)


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
