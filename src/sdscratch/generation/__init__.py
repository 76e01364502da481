"""From prompt to picture: a model on a device, and the stages that a picture goes through.

networks.py   the networks by name: loaded, let go, retried in float32
pipeline.py   encode, denoise, decode; what Python users hold
preview.py    what is in a latent, in a moment
tiles.py      a latent decoded in tiles
outputs.py    where pictures go
"""
