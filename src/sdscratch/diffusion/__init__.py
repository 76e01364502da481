"""The mathematics of diffusion: pure functions and frozen values, without files.

catalogue.py        every sampler and spacing, one row each: names in every tool, and what goes with them
spellings.py        samplers and spacings by any name that a tool has for them
conventions.py      what --like stands for, one row a tool
schedule.py         how noisy every timestep is: betas, sigma from timestep and back
levels.py           the formulas of spacings
timesteps.py         the same by timestep, as diffusers has them
incomplete_beta.py  the quantiles that one of them needs
spacing.py          which levels a run visits, as each tool means it: the sigma schedule
samplers/           from noise to a latent, one family a file
noise/              unit noise: seeded, as a GPU draws it, of Brownian intervals
inpaint.py          what lies outside a mask put back; instructions that a picture follows
guidance.py         from a network's prediction to an estimate of the picture, pulled by the prompt
tricks.py           what else is done to guided predictions, off by default
approximations.py   what makes pictures faster, and a little different
sample.py           sampling, assembled once
"""
