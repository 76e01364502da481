"""A folder of pictures with captions, for training.

    captions.py       what the pictures show: tables, and text files beside them
    folder.py         what can be trained on, and what cannot, with reasons
    buckets.py        pictures of many shapes at a few sizes
    plan.py           which picture stands at which index of which step
    hints.py          hints of the pictures, for controls
    source.py         what a step is given: pictures or latents
    folder_source.py  a folder as that, decoded in the background
    cache.py          latents and text embeddings on disk
    shapes.py         a folder to begin with: coloured shapes

All but source.py, folder_source.py, hints.py and cache.py do without torch.
"""
