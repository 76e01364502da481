"""How good a model is.

quality.py  on pictures with captions: what its autoencoder loses, and its U-Net's loss by timestep
"""
