"""What this machine's processor can do, where that decides how something is computed."""

from __future__ import annotations

import torch

__all__ = ["has_bfloat16_products"]


def has_bfloat16_products() -> bool:
    """Whether oneDNN multiplies matrices of bfloat16 here.

    Where it does not (x86 without AVX-512, builds of PyTorch without oneDNN) its own operations fail, and
    PyTorch's are exact but slow.
    """
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
