"""Any file of weights: names, shapes, tensors read one by one, metadata. Nothing in a file is ever run.

sniff.py      what a file really is, by its first bytes
header.py     safetensors: the header, checked against the file
gguf.py       GGUF: the header of stable-diffusion.cpp's files
quantised.py  what its blocks of 2 to 8 bits stand for
scales.py     safetensors of 8 bits: integers, and scales beside them
inert.py      the globals that a pickle may name, each standing for a recipe of ours
unpickle.py   a pickle read as data, by a machine that can build nothing else
archive.py    what torch.save writes around a pickle: a zip, or the older form
reader.py     all of them behind one interface, tensors mapped from the file
identify.py   what kind of thing a file holds, told by names and shapes
"""
