"""Pictures: read safely, fitted to a size, written whole, with a record of how they were made.

    open.py      anything but a sound PNG, JPEG or WebP is named and refused
    read.py      pictures of every kind -> 8-bit sRGB
    fit.py       a picture brought to a size
    masks.py     masks as numbers: blurred, reduced, and what lies under them filled
    repaint.py   what of a picture is repainted, and that the rest keeps its bytes
    hints.py     hints for controls, made of pictures by rules
    edges.py     blurs and edges, which they are made with
    chunks.py    a PNG without what is too large or broken beside its pixels
    metadata/    how a picture was made, as it says itself: our record, and every tool's dialect
    exif.py      EXIF data as they are written
    carry.py     how the records ride in a file
    sidecar.py   a record beside a picture
    film.py      pictures one after another
    terminal.py  a picture in a terminal
    compare.py   how near one picture comes to another
    tensors.py   pixels as the networks see them, and back (the one file with torch)
    write.py     complete or absent, and the same bytes for the same picture and record

Nothing else here imports torch.
"""

from sdscratch.images.carry import Records, read_records
from sdscratch.images.fit import fit_picture, parse_colour, picture_hash
from sdscratch.images.metadata.control import ControlRecord
from sdscratch.images.metadata.extras import Extras
from sdscratch.images.metadata.infotext import Infotext, parse_infotext
from sdscratch.images.metadata.record import AddonRecord, LoraRecord, MaskRecord, Record, TemplateRecord
from sdscratch.images.read import (
    over_colour,
    picture_size,
    plain_picture,
    read_picture,
    read_whole,
    whole_picture,
)
from sdscratch.images.repaint import Repaint, masks_kept, plan_repaint
from sdscratch.images.sidecar import sidecar_of, write_sidecar
from sdscratch.images.write import SUFFIXES, check_suffix, is_saved, save_picture

__all__ = [
    "SUFFIXES",
    "AddonRecord",
    "ControlRecord",
    "Extras",
    "Infotext",
    "LoraRecord",
    "MaskRecord",
    "Record",
    "Records",
    "Repaint",
    "TemplateRecord",
    "check_suffix",
    "fit_picture",
    "is_saved",
    "masks_kept",
    "over_colour",
    "parse_colour",
    "parse_infotext",
    "picture_hash",
    "picture_size",
    "plain_picture",
    "plan_repaint",
    "read_picture",
    "read_records",
    "read_whole",
    "save_picture",
    "sidecar_of",
    "whole_picture",
    "write_sidecar",
]
