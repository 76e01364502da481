"""A folder of pictures with captions, for training.

    captions.py  what the pictures show: tables, and text files beside them
    folder.py    what can be trained on, and what cannot, with reasons
    buckets.py   pictures of many shapes at a few sizes
    plan.py      which picture stands at which place of which step
    source.py    decoded in the background, as the trainer's source
    cache.py     latents and text embeddings on disk
    shapes.py    a folder to begin with: coloured shapes

All but source.py and cache.py do without torch.
"""
