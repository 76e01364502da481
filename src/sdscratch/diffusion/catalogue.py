"""Every sampler and every spacing, one row each: what they are called in every tool, and what goes with them.

Options, help, infotexts and spacing.py read this table. A new sampler is a function in samplers/ and a row
here. This module imports no torch and no numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "SamplerSpec",
    "Spaced",
    "SpacingSpec",
]


@dataclass(frozen=True)
class Spaced:
    """How a sampler's reference in diffusers reads a schedule.

    Made from Stable Diffusion 1.5's published scheduler configuration; where diffusers has no such sampler,
    as k-diffusion does: fractional timesteps, noise·σ₀ at the start.
    """

    scheduler: str  # its own spacing
    spare: int = 0  # points spaced out beyond the steps, of which the lowest go unused
    rounds: bool = False  # tells the network whole timesteps only
    unit_start: bool = False  # starts at plain noise in variance-preserving scale
    ends_at_first: bool = False  # ends at the first timestep's σ₀ instead of 0


Noise = Literal["none", "plain", "brownian"]


@dataclass(frozen=True)
class SamplerSpec:
    """One sampler.

    Attributes:
        title: what the web UIs list it as, and infotexts say.
        spaced: how its levels are chosen where no tool is asked for.
        spellings: other tools' names that `spellings.plain` does not bring to one of the above.
        denoisings: how often the network is asked, for n steps of which the last goes to 0.
        webui: the web UIs' own spacing; None is `normal`.
        discards: the tools that compute one level more and leave out the last but one.
        noise: what it draws: none, plain, or of intervals that a Brownian path makes.
        parameters: what it takes by name besides.
        alone: its steps are chosen for a whole batch, so that a picture must be sampled on its own.
        unguided: it needs the estimate without the prompt too (CFG++).
    """

    name: str
    title: str
    spaced: Spaced
    spellings: tuple[str, ...] = ()
    denoisings: str = "n"
    webui: str | None = None
    discards: tuple[str, ...] = ()
    noise: Noise = "none"
    parameters: tuple[str, ...] = ()
    alone: bool = False
    unguided: bool = False

    def steps(self, levels: int) -> int | None:
        """How many steps it makes of so many; None where it decides as it goes."""
        if self.name == "dpm_fast":
            return levels // 3 + 1
        return None if self.denoisings == "adaptive" else levels

    def evaluations(self, steps: int, *, to_zero: bool = True) -> int | None:
        """How often the network is asked in so many steps; None where the sampler decides as it goes.

        Args:
            to_zero: the last step goes to σ = 0, where no second estimate is made.
        """
        counts: Mapping[str, int | None] = {
            "n": steps,
            "n+1": steps + (steps > 1),
            "2n-1": 2 * steps - to_zero,
            "3n-2": 3 * steps - 2 * to_zero,
            "3n-3": max(3 * steps - 3, min(steps, 1)),
            "adaptive": None,
        }
        return max(counts[self.denoisings] or 0, 0) if self.denoisings != "adaptive" else None


LINSPACE = Spaced("linspace")
ROUNDED = Spaced("linspace", spare=1, rounds=True, unit_start=True)
WHOLE_STRIDES = Spaced("leading", rounds=True, unit_start=True)
TO_FIRST = Spaced("leading", rounds=True, unit_start=True, ends_at_first=True)
KARRAS, EXPONENTIAL, NORMAL = Spaced("karras"), Spaced("exponential"), Spaced("normal")

CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise", "spare_draws")
FRESH = ("eta", "s_noise")
SA = (*FRESH, "noisy", "predictor_order", "corrector_order")
UNIPC = ("order", "lower_order_final", "ends_denoised")
PID = ("pcoeff", "icoeff", "dcoeff", "accept_safety")
WEB, COMFY = ("a1111", "forge"), ("comfyui",)

SAMPLERS: Mapping[str, SamplerSpec] = {
    row.name: row
    for row in (
        SamplerSpec("ddpm", "DDPM", WHOLE_STRIDES, noise="plain"),
        SamplerSpec("ddim", "DDIM", TO_FIRST, noise="plain", parameters=("eta",)),
        SamplerSpec("euler", "Euler", LINSPACE, ("eulerdiscrete",), parameters=CHURN),
        SamplerSpec("euler_a", "Euler a", LINSPACE, ("euleradiscrete",), noise="plain", parameters=FRESH),
        SamplerSpec("heun", "Heun", LINSPACE, ("heundiscrete",), "2n-1", parameters=CHURN),
        SamplerSpec("heunpp2", "HeunPP2", LINSPACE, (), "3n-3", parameters=CHURN),
        SamplerSpec(
            "dpm2",
            "DPM2",
            LINSPACE,
            ("kdpm2", "kdpm2discrete"),
            "2n-1",
            "karras",
            (*WEB, *COMFY),
            parameters=CHURN,
        ),
        SamplerSpec(
            "dpm2_a",
            "DPM2 a",
            LINSPACE,
            ("kdpm2a", "kdpm2adiscrete"),
            "2n-1",
            "karras",
            (*WEB, *COMFY),
            "plain",
            FRESH,
        ),
        SamplerSpec("lms", "LMS", LINSPACE, ("lmsdiscrete",), parameters=("order", "ends_denoised")),
        SamplerSpec("dpm_fast", "DPM fast", NORMAL, (), noise="plain", parameters=FRESH),
        SamplerSpec(
            "dpm_adaptive",
            "DPM adaptive",
            NORMAL,
            denoisings="adaptive",
            noise="plain",
            parameters=("order", "rtol", "atol", "h_init", *PID, *FRESH),
            alone=True,
        ),
        SamplerSpec("dpm++2s_a", "DPM++ 2S a", KARRAS, (), "2n-1", "karras", noise="plain", parameters=FRESH),
        SamplerSpec(
            "dpm++sde",
            "DPM++ SDE",
            KARRAS,
            ("dpmsolversde",),
            "2n-1",
            "karras",
            noise="brownian",
            parameters=(*FRESH, "r"),
        ),
        SamplerSpec("dpm++2m", "DPM++ 2M", ROUNDED, ("dpmsolvermultistep", "dpmsolver++"), webui="karras"),
        SamplerSpec(
            "dpm++2m_sde",
            "DPM++ 2M SDE",
            ROUNDED,
            ("sdedpmsolver++",),
            webui="exponential",
            noise="brownian",
            parameters=(*FRESH, "solver_type"),
        ),
        SamplerSpec(
            "dpm++2m_sde_heun",
            "DPM++ 2M SDE Heun",
            EXPONENTIAL,
            webui="exponential",
            noise="brownian",
            parameters=FRESH,
        ),
        SamplerSpec(
            "dpm++3m_sde",
            "DPM++ 3M SDE",
            EXPONENTIAL,
            webui="exponential",
            discards=WEB,
            noise="brownian",
            parameters=FRESH,
        ),
        SamplerSpec(
            "unipc",
            "UniPC",
            ROUNDED,
            ("unipcmultistep", "unipcbh1"),
            discards=COMFY,
            parameters=("variant", *UNIPC),
        ),
        SamplerSpec("unipc_bh2", "UniPC bh2", ROUNDED, discards=COMFY, parameters=UNIPC),
        SamplerSpec("plms", "PLMS", TO_FIRST, ("pndm",), "n+1"),
        SamplerSpec("deis", "DEIS", ROUNDED, ("deismultistep",), parameters=("max_order",)),
        SamplerSpec("ipndm", "IPNDM", NORMAL, parameters=("max_order", "ends_denoised")),
        SamplerSpec("ipndm_v", "IPNDM_V", NORMAL, parameters=("max_order", "ends_denoised")),
        SamplerSpec(
            "lcm", "LCM", Spaced("lcm", rounds=True, unit_start=True), noise="plain", parameters=("s_noise",)
        ),
        SamplerSpec(
            "tcd",
            "TCD",
            Spaced("lcm", rounds=True, unit_start=True, ends_at_first=True),
            noise="plain",
            parameters=("eta", "schedule"),
        ),
        SamplerSpec(
            "restart",
            "Restart",
            KARRAS,
            denoisings="2n-1",
            webui="karras",
            noise="plain",
            parameters=("s_noise", "restart_list"),
        ),
        SamplerSpec("res_multistep", "Res Multistep", NORMAL, noise="plain", parameters=FRESH),
        SamplerSpec("res_multistep_a", "Res Multistep a", NORMAL, noise="plain", parameters=FRESH),
        SamplerSpec(
            "gradient_estimation", "Gradient Estimation", NORMAL, ("eulerge",), parameters=("ge_gamma",)
        ),
        SamplerSpec(
            "er_sde", "ER SDE", NORMAL, noise="plain", parameters=("s_noise", "max_stage", "noise_scale")
        ),
        SamplerSpec("seeds_2", "Seeds 2", NORMAL, (), "2n-1", noise="brownian", parameters=(*FRESH, "r")),
        SamplerSpec(
            "seeds_3", "Seeds 3", NORMAL, (), "3n-2", noise="brownian", parameters=(*FRESH, "r_1", "r_2")
        ),
        SamplerSpec("sa_solver", "SA-Solver", NORMAL, noise="plain", parameters=SA),
        SamplerSpec("sa_solver_pece", "SA-Solver PECE", NORMAL, (), "2n-1", noise="plain", parameters=SA),
        SamplerSpec("euler_cfg++", "Euler CFG++", NORMAL, ("ddimcfg++",), parameters=FRESH, unguided=True),
        SamplerSpec("euler_a_cfg++", "Euler a CFG++", NORMAL, noise="plain", parameters=FRESH, unguided=True),
        SamplerSpec(
            "dpm++2s_a_cfg++",
            "DPM++ 2S a CFG++",
            NORMAL,
            denoisings="2n-1",
            noise="plain",
            parameters=FRESH,
            unguided=True,
        ),
        SamplerSpec("dpm++2m_cfg++", "DPM++ 2M CFG++", NORMAL, unguided=True),
        SamplerSpec(
            "res_multistep_cfg++",
            "Res Multistep CFG++",
            NORMAL,
            noise="plain",
            parameters=FRESH,
            unguided=True,
        ),
        SamplerSpec(
            "res_multistep_a_cfg++",
            "Res Multistep a CFG++",
            NORMAL,
            noise="plain",
            parameters=FRESH,
            unguided=True,
        ),
        SamplerSpec(
            "gradient_estimation_cfg++",
            "Gradient Estimation CFG++",
            NORMAL,
            parameters=("ge_gamma",),
            unguided=True,
        ),
    )
}


@dataclass(frozen=True)
class SpacingSpec:
    """One way to choose noise levels; how each tool means it is in spacing.py."""

    name: str
    title: str  # what the web UIs list it as
    spellings: tuple[str, ...] = ()


SPACINGS: Mapping[str, SpacingSpec] = {
    row.name: row
    for row in (
        SpacingSpec("leading", "Leading"),
        SpacingSpec("trailing", "Trailing"),
        SpacingSpec("linspace", "Linspace"),
        SpacingSpec("normal", "Normal", ("discrete", "uniform")),
        SpacingSpec("karras", "Karras"),
        SpacingSpec("exponential", "Exponential"),
        SpacingSpec("polyexponential", "Polyexponential"),
        SpacingSpec("sgm_uniform", "SGM Uniform"),
        SpacingSpec("simple", "Simple"),
        SpacingSpec("ddim_uniform", "DDIM", ("ddim",)),
        SpacingSpec("beta", "Beta"),
        SpacingSpec("kl_optimal", "KL Optimal"),
        SpacingSpec("align_your_steps", "Align Your Steps", ("ays", "ays11", "alignyoursteps11")),
        SpacingSpec("gits", "GITS"),
        SpacingSpec("turbo", "Turbo"),
        SpacingSpec("linear_quadratic", "Linear Quadratic"),
        SpacingSpec("lcm", "LCM"),
        SpacingSpec("vp", "VP"),
        SpacingSpec("laplace", "Laplace"),
        SpacingSpec("align_your_steps_32", "Align Your Steps 32", ("ays32",)),
        SpacingSpec("align_your_steps_gits", "Align Your Steps GITS", ("aysgits",)),
    )
}
