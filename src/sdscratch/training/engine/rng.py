"""Random numbers that can be had again: a generator for every purpose, step and index."""

from __future__ import annotations

from hashlib import blake2b

import torch

__all__ = ["generator", "seed_of"]


def seed_of(*what: int | str) -> int:
    """A seed of 63 bits, another for every `what`; the same on every machine."""
    return int.from_bytes(blake2b(repr(what).encode(), digest_size=8).digest()) >> 1


def generator(device: torch.device | str, *what: int | str) -> torch.Generator:
    """A generator of torch's that begins anew for every `what`."""
    return torch.Generator(device).manual_seed(seed_of(*what))
