"""The mathematics of diffusion: pure functions and frozen values, no state.

schedule.py   how noisy every step is, and which steps a sampler visits
samplers.py   from noise to a latent
noise.py      noise of a seed
guidance.py   from a network's prediction to an estimate of the picture, pulled by the prompt

approximations.py   what makes pictures faster, and a little different
"""
