"""The embedded model: its data generator, its shape, its recipe.

Everything here rests on `sdscratch.training`, which knows nothing of it: it is one user of that package
among others, and the proof that a model can be trained with it from nothing.
"""
