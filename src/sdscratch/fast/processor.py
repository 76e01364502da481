"""What this machine's processor can do, where that decides how something is computed."""

from __future__ import annotations

import torch

__all__ = ["multiplies"]


def multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies matrices of this type here.

    Where it does not (bfloat16 on x86 without AVX-512; either 16-bit type in a build without oneDNN) its own
    operations fail, and PyTorch's others take many times as long as in float32.
    """
    checks = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if dtype not in checks:
        return True
    return torch.backends.mkldnn.is_available() and bool(getattr(torch.ops.mkldnn, checks[dtype])())
