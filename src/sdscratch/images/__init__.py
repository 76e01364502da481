"""Pictures: read safely, fitted to a size, written whole, with a record of how they were made.

    open.py      anything but a sound PNG, JPEG or WebP is named and refused
    read.py      pictures of every kind -> 8-bit sRGB
    fit.py       a picture brought to a size
    metadata.py  the two records of how a picture was made: our own, and the web UIs' infotext
    carry.py     how the records ride in a file
    tensors.py   pixels as the networks see them, and back (the one file with torch)
    write.py     complete or absent, and the same bytes for the same picture and record

Nothing else here imports torch.
"""

from sdscratch.images.carry import Records, read_records
from sdscratch.images.fit import fit_picture, parse_colour, picture_hash
from sdscratch.images.metadata import Infotext, LoraRecord, Record, parse_infotext
from sdscratch.images.read import picture_size, plain_picture, read_picture
from sdscratch.images.write import SUFFIXES, check_suffix, save_picture

__all__ = [
    "SUFFIXES",
    "Infotext",
    "LoraRecord",
    "Record",
    "Records",
    "check_suffix",
    "fit_picture",
    "parse_colour",
    "parse_infotext",
    "picture_hash",
    "picture_size",
    "plain_picture",
    "read_picture",
    "read_records",
    "save_picture",
]
