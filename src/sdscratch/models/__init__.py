"""The networks as their papers have them, and their shapes as values. What makes them fast is `fast`.

config.py         every width and depth; SD 1.x is one value
conditioning.py   all that a U-Net is told besides the noisy latent and the time
control.py        what steers a U-Net from beside it
layers.py         what two networks share: residual blocks, up- and downsampling
attention.py      attention
quantised.py      layers whose weights stay 8-bit integers
clip.py           prompt → context
unet.py           noisy latent, time, context → noise
altered.py        the same U-Net with something done otherwise inside: FreeU, perturbed attention
vae.py            picture ↔ latent
controlnet.py     hint, noisy latent, time, context → what is added to the U-Net's skips
ip_adapter.py     picture, encoded → what cross-attentions attend to besides the prompt
image_encoder.py  picture → vectors, as CLIP sees it
image_prompt_config.py   the shapes of both
t2i_adapter.py    hint → what is added to its levels
esrgan.py         a picture → a larger one
taesd.py          latent → picture at a hundredth of the cost
"""
