"""How good a model is.

evaluation.py  all measurements of one model
quality.py     on pictures with captions: what its autoencoder loses, and its U-Net's loss by timestep
"""
