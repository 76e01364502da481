"""Unit noise, the same for a seed on every device and at every batch size.

seeded.py     one generator a picture: CPU or NVIDIA numbers, variation seeds, other sizes; one for a batch
philox.py     the generator of NVIDIA's GPUs, computed anywhere
brownian.py   noise of intervals, for samplers of stochastic equations
sources.py    which of them a sampler gets, as each tool draws
"""

from __future__ import annotations

from sdscratch.diffusion.noise.brownian import BrownianNoise
from sdscratch.diffusion.noise.philox import Philox
from sdscratch.diffusion.noise.seeded import BatchNoise, Noise, slerp
from sdscratch.diffusion.noise.sources import noise_sources

__all__ = ["BatchNoise", "BrownianNoise", "Noise", "Philox", "noise_sources", "slerp"]
