"""The networks, and their shapes as values.

config.py   every width and depth; SD 1.x is one value
conditioning.py   all that a U-Net is told besides the noisy latent and the time
layers.py   what two networks share: attention, residual blocks, up- and downsampling
clip.py     prompt → context
unet.py     noisy latent, time, context → noise
vae.py      picture ↔ latent
taesd.py    latent → picture at a hundredth of the cost
attention.py   attention, by the kernel that is fastest
inference.py   the forms in which networks run fastest
winograd.py    3×3 convolutions with fewer products
widened.py     16-bit weights on a processor without 16-bit arithmetic
processor.py   what this processor can do
"""
