"""What kind of device something is on: the one place that is asked wherever the way depends on it.

So one device can stand for another: tests run the paths of GPUs on a device that computes nothing.
This module imports no torch before it is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["STANDS_FOR", "device_kind", "widest"]

STANDS_FOR: dict[str, str] = {}  # a type of device: the kind as which it is treated


def device_kind(device: torch.device) -> str:
    """cpu, cuda or mps."""
    return STANDS_FOR.get(device.type, device.type)


def widest(device: torch.device) -> torch.dtype:
    """The most exact numbers that a device computes with: float64, which Apple's GPUs have not."""
    import torch

    return torch.float32 if device_kind(device) == "mps" else torch.float64
