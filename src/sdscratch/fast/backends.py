"""Which of PyTorch's kernels of attention is the fastest on this GPU: measured once, in milliseconds."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdscratch.hardware import device_kind
from sdscratch.models.config import UNetConfig

__all__ = ["BACKENDS", "attention_shape", "fastest_attention"]

log = logging.getLogger(__name__)

BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
MARGIN = 1.2  # times slower than the fastest still counts as equally fast


def attention_shape(config: UNetConfig, latent: Sequence[int]) -> tuple[int, int, int, int]:
    """Of the largest self-attention: pictures, heads, positions, width of a head."""
    n, _, height, width = latent
    level = config.attends.index(True) if True in config.attends else len(config.attends) - 1
    positions = -(-height // 2**level) * -(-width // 2**level)  # sides are rounded up on the way down
    heads = config.heads_at(level)
    return n, heads, positions, config.channels * config.multipliers[level] // heads


@cache
def fastest_attention(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]
) -> tuple[SDPBackend, ...]:
    """The backends in the order in which they are to be tried, by measuring them once (milliseconds)."""
    times = attention_times(device, dtype, shape)
    told = ", ".join(f"{backend.name.lower()} {seconds * 1e3:.2f} ms" for backend, seconds in times.items())
    log.info("attention of %s: %s", "×".join(map(str, shape)), told)
    return in_order(times)


def in_order(times: Mapping[SDPBackend, float]) -> tuple[SDPBackend, ...]:
    """The fastest backend first, then the others: what refused this shape may be what another one needs.

    Of those that are about as fast, the first of `BACKENDS`: chance must not decide, or a picture's last bits
    would differ from one day to the next.
    """
    good = MARGIN * min(times.values(), default=0.0)
    best = [backend for backend in BACKENDS if times.get(backend, math.inf) <= good][:1]
    return (*best, *(backend for backend in BACKENDS if backend not in best))


def attention_times(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], repeats: int = 10
) -> Mapping[SDPBackend, float]:
    """Seconds of self-attention by backend; those that refuse are left out."""
    q = torch.zeros(shape, device=device, dtype=dtype)
    times: dict[SDPBackend, float] = {}
    for backend in BACKENDS:
        try:
            with sdpa_kernel(backend), torch.inference_mode():
                F.scaled_dot_product_attention(q, q, q)
                wait(device)
                start = time.perf_counter()
                for _ in range(repeats):
                    F.scaled_dot_product_attention(q, q, q)
                wait(device)
                times[backend] = (time.perf_counter() - start) / repeats
        except RuntimeError:  # no kernel for this shape, precision or GPU
            continue
    return times


def wait(device: torch.device) -> None:
    """Until a GPU has done its work."""
    if device_kind(device) == "cuda":
        torch.cuda.synchronize(device)
