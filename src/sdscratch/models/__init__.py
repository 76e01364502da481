"""The networks, and their shapes as values.

config.py   every width and depth; SD 1.x is one value
layers.py   what two networks share: attention, residual blocks, up- and downsampling
clip.py     prompt → context
unet.py     noisy latent, time, context → noise
vae.py      picture ↔ latent
"""
