"""What the page shows of a run, stage by stage: a mapping for the template, and pictures by step.

frames.py    pictures and texts by step, which the page's slider moves through
words.py     the prompt's tokens, the text encoder's context and attention
levels.py    the noise to begin with, and the levels that the run goes through
loop.py      every step in pictures and numbers
inside.py    the U-Net's blocks, and where words look
topology.py  the U-Net drawn as it is
pixels.py    the decoder's levels, and the encoder's posterior
made.py      the picture, its record, and the command that makes it again
"""
