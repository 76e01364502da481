"""Computations compiled by torch, where that works."""

from __future__ import annotations

import logging

import torch

from sdscratch.fast.compute import Compute, Input, Outputs, first_line

__all__ = ["compiled"]

log = logging.getLogger(__name__)


def compiled(compute: Compute) -> Compute:
    """The computation compiled by torch (a minute at its first call), or as it is where that fails."""
    fast: Compute = torch.compile(compute, dynamic=False)
    works: bool | None = None

    def run(*inputs: Input) -> Outputs:
        nonlocal works
        if works is False:
            return compute(*inputs)
        try:
            result = fast(*inputs)
        except Exception as error:  # compilers fail in many ways, of which none should cost a picture
            if works:
                raise
            log.warning("the U-Net could not be compiled, and runs as it is: %s", first_line(error))
            works = False
            return compute(*inputs)
        works = True
        return result

    return run
