"""What a file really is, by its first bytes: extensions lie. This module imports no torch."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Literal

from sdscratch.errors import CheckpointError
from sdscratch.show import printable

__all__ = ["FileFormat", "sniff"]

FileFormat = Literal["safetensors", "zip", "pickle", "gguf"]

HEAD = 512  # bytes looked at; a tar archive's mark stands at 257

# How files begin that people take for weights: what it is, and what to do.
FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file it stands for", "run `git lfs pull`"),
    (rb"\s*<(?i:!doctype|html|head|\?xml|!--)", "a web page", "download the file itself"),
    (rb"\0{32}", "empty at its beginning, an unfinished download", "download it again"),
    (rb"PK\x05\x06", "an empty zip archive", "download it again"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "a compressed archive", "unpack it first"),
    (rb".{257}ustar", "a tar archive", "unpack it first"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|BM.{8}\0\0", "a picture", "name a file of weights"),
    (rb"%PDF", "a PDF document", "name a file of weights"),
    (rb"\x89HDF", "an HDF5 file", "look for the same model as .safetensors"),
    (rb"\x7fELF|MZ|\xcf\xfa\xed\xfe", "a program", "name a file of weights"),
    (rb"#!", "a script", "name a file of weights"),
    (rb"\x93NUMPY", "a NumPy array", "name a file of weights"),
    (rb"c[\w.]+\n[\w.]+\n|\(dp\d", "a pickle, but not one that torch.save wrote", "do not trust it"),
    (rb"\s*[\[{]", "a JSON file", "name the file of weights beside it"),
)


def sniff(path: str | Path) -> FileFormat:
    """Which of the formats that hold weights `path` has.

    Raises:
        CheckpointError: none of them; says what it is instead, and what to do.
    """
    name = printable(path)
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise CheckpointError(f"{name} is a folder; name the file of weights in it")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise CheckpointError(f"{name} is no regular file; name a file of weights")
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror}; check its name") from None
    except ValueError:  # a NUL in the name
        raise CheckpointError(f"{name} is no file name") from None
    if not head:
        raise CheckpointError(f"{name} is empty; download it again")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    if head.startswith(b"GGUF"):
        return "gguf"
    for pattern, kind, advice in FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            raise CheckpointError(f"{name} is {kind}; {advice}")
    raise CheckpointError(f"{name} is no file of weights (it begins with {head[:8]!r}); name another")
