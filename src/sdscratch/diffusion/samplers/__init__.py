"""From noise to a latent: samplers as pure generator functions, one family a file.

Each is called as `SAMPLERS[name](denoise, x, sigmas, noise, **parameters)` and yields a `Step` after each
step. `denoise(x, σ)` estimates x₀ at any σ; `noise(σ, next σ)` draws unit noise of x's shape. Nothing else
goes in, and nothing is kept. What else there is to know of each, without torch, is a row of catalogue.py.

types.py         what goes in and comes out
euler.py         Euler's method: read it first
churn.py         noise added before a step, for samplers of ODEs
first_order.py   the first order with fresh noise: ddim, ddpm, euler_a
heun.py          two slopes a step, or three: heun, heunpp2, restart
dpm2.py          the slope in the middle: dpm2, dpm2_a
multistep.py     the slopes of the steps before: lms, plms, ipndm, ipndm_v, deis
dpm_solver.py    orders 1 to 3 mixed, steps of their own: dpm_fast, dpm_adaptive
dpmpp.py         DPM-Solver++: dpm++2m, dpm++2s_a
dpmpp_sde.py     … of the stochastic equation: dpm++sde, dpm++2m_sde, dpm++2m_sde_heun, dpm++3m_sde
unipc.py         a predictor and corrector of any order: unipc, unipc_bh2
sa_solver.py     a stochastic predictor and corrector: sa_solver, sa_solver_pece
consistency.py   few steps, each to x₀: lcm, tcd
exponential.py   res_multistep, res_multistep_a, gradient_estimation, er_sde, seeds_2, seeds_3
cfgpp.py         CFG++: euler_cfg++, euler_a_cfg++, dpm++2m_cfg++ and others
"""

from __future__ import annotations

from collections.abc import Mapping

from sdscratch.diffusion.samplers.cfgpp import (
    dpmpp_2m_cfgpp,
    dpmpp_2s_a_cfgpp,
    euler_a_cfgpp,
    euler_cfgpp,
    gradient_estimation_cfgpp,
    res_multistep_a_cfgpp,
    res_multistep_cfgpp,
)
from sdscratch.diffusion.samplers.consistency import lcm, tcd
from sdscratch.diffusion.samplers.dpm2 import dpm2, dpm2_a
from sdscratch.diffusion.samplers.dpm_solver import dpm_adaptive, dpm_fast
from sdscratch.diffusion.samplers.dpmpp import dpmpp_2m, dpmpp_2s_a
from sdscratch.diffusion.samplers.dpmpp_sde import dpmpp_2m_sde, dpmpp_2m_sde_heun, dpmpp_3m_sde, dpmpp_sde
from sdscratch.diffusion.samplers.euler import euler
from sdscratch.diffusion.samplers.exponential import (
    er_sde,
    gradient_estimation,
    res_multistep,
    res_multistep_a,
    seeds_2,
    seeds_3,
)
from sdscratch.diffusion.samplers.first_order import ddim, ddpm, euler_a
from sdscratch.diffusion.samplers.heun import heun, heunpp2, restart
from sdscratch.diffusion.samplers.multistep import deis, ipndm, ipndm_v, lms, plms
from sdscratch.diffusion.samplers.sa_solver import sa_solver, sa_solver_pece
from sdscratch.diffusion.samplers.types import Denoiser, NoiseSource, Sampler, Step
from sdscratch.diffusion.samplers.unipc import unipc, unipc_bh2

__all__ = ["SAMPLERS", "Denoiser", "NoiseSource", "Sampler", "Step"]

SAMPLERS: Mapping[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "euler_a": euler_a,
    "heun": heun,
    "heunpp2": heunpp2,
    "dpm2": dpm2,
    "dpm2_a": dpm2_a,
    "lms": lms,
    "dpm_fast": dpm_fast,
    "dpm_adaptive": dpm_adaptive,
    "dpm++2s_a": dpmpp_2s_a,
    "dpm++sde": dpmpp_sde,
    "dpm++2m": dpmpp_2m,
    "dpm++2m_sde": dpmpp_2m_sde,
    "dpm++2m_sde_heun": dpmpp_2m_sde_heun,
    "dpm++3m_sde": dpmpp_3m_sde,
    "unipc": unipc,
    "unipc_bh2": unipc_bh2,
    "plms": plms,
    "deis": deis,
    "ipndm": ipndm,
    "ipndm_v": ipndm_v,
    "lcm": lcm,
    "tcd": tcd,
    "restart": restart,
    "res_multistep": res_multistep,
    "res_multistep_a": res_multistep_a,
    "gradient_estimation": gradient_estimation,
    "er_sde": er_sde,
    "seeds_2": seeds_2,
    "seeds_3": seeds_3,
    "sa_solver": sa_solver,
    "sa_solver_pece": sa_solver_pece,
    "euler_cfg++": euler_cfgpp,
    "euler_a_cfg++": euler_a_cfgpp,
    "dpm++2s_a_cfg++": dpmpp_2s_a_cfgpp,
    "dpm++2m_cfg++": dpmpp_2m_cfgpp,
    "res_multistep_cfg++": res_multistep_cfgpp,
    "res_multistep_a_cfg++": res_multistep_a_cfgpp,
    "gradient_estimation_cfg++": gradient_estimation_cfgpp,
}
