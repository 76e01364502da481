"""Stable Diffusion 1.x models as files: found, checked, loaded part by part, converted, written.

layouts/          every weight of a model under its three names: ours, LDM's, diffusers'
names.py          older spellings, and what files hold beside the weights
folder_config.py  a diffusers folder's configuration, to and from ours
shapes.py         the shapes of models whose files do not say
source.py         a file or a folder as one set of tensors
model.py          a model, checked in full before anything of it is loaded
network_file.py   whatever loads as a network
empty.py          networks without memory, which the tensors then fill
taesd.py          tiny decoders as files
tiny_encoder.py   tiny encoders as files
tiny.py           both in the place of a model's own autoencoder
changes.py        the port by which add-ons change weights where they are read
peft.py           what PEFT keeps beside a LoRA: how strong it is
places.py         where models are on this machine
hub.py            and where they are not
tokenizers.py     the tokenizer that belongs to a model
clip_table.py     CLIP's, where other programs keep it on this machine
hashing.py        files' fingerprints, remembered
writer.py         a model as one file, or as a folder
gguf_writer.py    or as a GGUF file
eight_bits.py     weights in 8 bits: which, as what, and kept so in memory
convert.py        any model in, either out, compared bit by bit
describe.py       what there is to say of a file
"""
