"""The built-in model: its data generator, its shape, its recipe.

Everything here rests on `sdscratch.training`, which knows nothing of it: it is one user of that package
among others, and the proof that a model can be trained with it from nothing.

vocabulary.py  what is known, under which names (concepts.txt), and on which backgrounds
colours.py     which things come in other colours, and how pictograms are painted
wardrobe.py    what animals wear, and where
styles.py      pixel art, silhouettes, outlines
backdrops.py   simple sceneries
pictograms.py  the font's pictures as a table of sprites
scenes.py      what a picture shows, before it is drawn
mixtures.py    which scenes come how often
captions.py    what is said of a scene
composer.py    draws scenes: a source of training pictures
model.py       shape and tokenizer, and the file that the model becomes
grow.py        a small model's weights, as the beginning of a larger one
hard_examples.py  what a model knows least, to be shown more
sampled.py     latents as the sampler leaves them, with the render that each should have become
crisp.py       teaching the decoder alone to draw those, flat and sharp
sketches.py    what a hand may draw of a scene
scribble.py    teaching an adapter to follow it
folder.py      what the stages of training hand on
stages.py      the stages of training
judge.py       a classifier that says what a picture shows
judging.py     training it
agreement.py   how often pictures show what was asked for
crispness.py   how crisp pictures are beside renders, and how far from them
__main__.py    the stages as commands: `python -m sdscratch.pictograms`
"""
