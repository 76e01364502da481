"""DPM-Solver (Lu et al. 2022a): exact for the linear part, Taylor's series for the noise, in t = −log σ.

Both samplers make their own steps: of `sigmas` they take the first, the last above 0 (where they end), and
the number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Step

__all__ = ["dpm_adaptive", "dpm_fast"]

ONE_THIRD, TWO_THIRDS = 1 / 3, 2 / 3


def clock(sigma: float) -> Tensor:
    """t = −log σ."""
    return -torch.tensor(sigma, dtype=torch.float64).log()


def level(t: Tensor) -> Tensor:
    """σ at a time."""
    return (-t).exp()


@dataclass
class Solver:
    """Steps of order 1 to 3 from one time to another; evaluations at the start are shared."""

    denoise: Denoiser
    x: Tensor
    t: Tensor
    denoised: Tensor = field(init=False)
    eps: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.eps = self.noise_in(self.x, self.t)
        self.denoised = self.x - level(self.t) * self.eps

    def noise_in(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise of unit variance that the network sees in x."""
        sigma = level(t)
        return (x - self.denoise(x, float(sigma))) / sigma

    def first(self, end: Tensor) -> Tensor:
        """DPM-Solver-1 (eq. 3.7)."""
        return self.along(end, end - self.t)

    def along(self, end: Tensor, h: Tensor) -> Tensor:
        """DPM-Solver-1 over h, which rounding may tell from end − t."""
        return self.x - level(end) * h.expm1() * self.eps

    def second(self, end: Tensor, r1: float = 1 / 2) -> Tensor:
        """DPM-Solver-2 (algorithm 4), its middle at the share r1 of the step."""
        h = end - self.t
        change = self.noise_at(r1, h) - self.eps
        return self.first(end) - level(end) / (2.0 * r1) * h.expm1() * change

    def third(self, end: Tensor) -> Tensor:
        """DPM-Solver-3 (algorithm 5)."""
        h, r1, r2 = end - self.t, ONE_THIRD, TWO_THIRDS
        middle = self.t + r2 * h
        bend = level(middle) * (r2 / r1) * ((r2 * h).expm1() / (r2 * h) - 1.0)
        x = self.along(middle, r2 * h) - bend * (self.noise_at(r1, h) - self.eps)
        change = self.noise_in(x, middle) - self.eps
        return self.first(end) - level(end) / r2 * (h.expm1() / h - 1.0) * change

    def noise_at(self, share: float, h: Tensor) -> Tensor:
        """The noise at a share of the step, reached by the first order; kept, for two orders may ask."""
        if share not in self._kept:
            middle = self.t + share * h
            self._kept[share] = self.noise_in(self.along(middle, share * h), middle)
        return self._kept[share]

    _kept: dict[float, Tensor] = field(default_factory=dict, init=False)


def bounds(sigmas: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The times of the first sigma and of the last above 0."""
    return clock(sigmas[0]), clock(sigmas[-1] if sigmas[-1] > 0.0 else sigmas[-2])


def go_down(t: Tensor, t_next: Tensor, t_end: Tensor, eta: float) -> tuple[Tensor, Tensor | float]:
    """The time to go down to, and the noise to come back up with (`ancestral`, but never past the end)."""
    if not eta:
        return t_next, 0.0
    sigma, next_sigma = level(t), level(t_next)
    up = torch.minimum(next_sigma, eta * (next_sigma**2 * (sigma**2 - next_sigma**2) / sigma**2).sqrt())
    down = torch.minimum(t_end, -((next_sigma**2 - up**2).sqrt().log()))
    return down, (next_sigma**2 - level(down) ** 2).sqrt()


def dpm_fast(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver-fast (Lu et al. 2022a, section 3.4): as many denoisings as there are steps in `sigmas`.

    Args:
        eta: the share of fresh noise; a noise is drawn at every step even at 0, as the reference does.
        s_noise: what the noise is multiplied by.
    """
    t_start, t_end = bounds(sigmas)
    evaluations = len(sigmas) - 1
    steps = evaluations // 3 + 1
    orders = [3] * (steps - 1) + [evaluations % 3]
    if evaluations % 3 == 0:
        orders = [3] * (steps - 2) + [2, 1]
    times = torch.linspace(float(t_start), float(t_end), steps + 1)  # in float32, as the reference's
    for index, order in enumerate(orders):
        t, t_next = times[index], times[index + 1]
        down, up = go_down(t, t_next, t_end, eta)
        solver = Solver(denoise, x, t)
        step: Callable[[Tensor], Tensor] = (solver.first, solver.second, solver.third)[order - 1]
        x = step(down) + up * s_noise * noise(float(level(t)), float(level(t_next)))
        yield Step(index, x, solver.denoised, float(level(t_next)))


def dpm_adaptive(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource,
    *,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Iterator[Step]:
    """DPM-Solver with steps as long as the error allows (Lu et al. 2022a, appendix C; k-diffusion).

    The error is one of the whole batch: only a batch of one picture is the same at every batch size. A step
    that is refused is reported too, with x as it was.

    Args:
        order: 2 or 3; its error is told by the order below.
        rtol, atol: the error allowed, as a share of x and absolutely.
        h_init: the first step, in t.
        pcoeff, icoeff, dcoeff: of the controller of the step size.
        accept_safety: the least factor of the step size with which a step is accepted.
        eta, s_noise: as of `dpm_fast`.
    """
    t, t_end = bounds(sigmas)
    control = StepSize(h_init, pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
    before, index = x, 0
    solver = Solver(denoise, x, t)
    while float(t) < float(t_end) - 1e-5:
        t_next = torch.minimum(t_end, t + control.h)
        down, up = go_down(t, t_next, t_end, eta)
        solver = Solver(denoise, x, t) if index else solver
        low = solver.first(down) if order == 2 else solver.second(down, ONE_THIRD)
        high = solver.second(down) if order == 2 else solver.third(down)
        allowed = torch.clamp(rtol * torch.maximum(low.abs(), before.abs()), min=atol)
        error = float(torch.linalg.vector_norm((low - high) / allowed)) / math.sqrt(x.numel())
        if control.accepts(error):
            before = low
            x = high + up * s_noise * noise(float(level(t)), float(level(t_next)))
            t = t_next
        yield Step(index, x, solver.denoised, float(level(t)))
        index += 1


class StepSize:
    """A PID controller of the step size (Söderlind 2003, as in k-diffusion)."""

    def __init__(self, h: float, p: float, i: float, d: float, order: float, safety: float) -> None:
        self.h = h
        self._powers = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
        self._safety = safety
        self._inverse_errors: list[float] = []  # of this step and the last two that were accepted

    def accepts(self, error: float) -> bool:
        """Whether a step of that error stands; changes the step size for the next."""
        inverse = 1.0 / (error + 1e-8)
        self._inverse_errors = [inverse, *(self._inverse_errors[1:] or (inverse, inverse))]
        factor = math.prod(e**power for e, power in zip(self._inverse_errors, self._powers, strict=True))
        factor = 1.0 + math.atan(factor - 1.0)
        accepted = factor >= self._safety
        if accepted:
            self._inverse_errors = [inverse, inverse, self._inverse_errors[1]]
        self.h *= factor
        return accepted
