"""What `torch.save` wrote: a zip archive, or before PyTorch 1.6 several pickles and the storages after them.

In both, a pickle describes the tensors, which are views of the storages. Only places are found here, and
checked against the file; the weights stay where they are.
This module imports no torch.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from sdscratch.tensorfiles.header import DTYPES, Span
from sdscratch.tensorfiles.inert import Storage
from sdscratch.tensorfiles.unpickle import MAX_PICKLE, unpickle

__all__ = ["Archive", "read_legacy", "read_zip"]

LEGACY_BEGINNING = (0x1950A86A20F9469CFC6C, 1001)  # torch.serialization's magic number and version
LOCAL_HEADER = 30  # bytes of a zip record's own header, before its name


@dataclass(frozen=True)
class Archive:
    """What was saved, tensors being `StoredTensor`s, and the bytes of the file that each storage is."""

    root: Any
    storages: Mapping[str, Span]


def read_zip(file: BinaryIO, size: int) -> Archive:
    """The archive in a zip file of `size` bytes.

    Raises:
        ValueError: damaged, not one of torch's, or more than weights.
    """
    records = _records(file)
    pickle = _find_pickle(records, size)
    prefix = pickle.filename.removesuffix("data.pkl")
    spans = {record.filename.removeprefix(prefix): _span(file, record, size) for record in records}
    if "byteorder" in spans and _read(file, spans["byteorder"]) != b"little":
        raise ValueError("it was written on a big-endian machine")
    read = unpickle(_read(file, spans["data.pkl"]))
    return Archive(read.value, {key: spans[f"data/{key}"] for key in read.storages if f"data/{key}" in spans})


class _Bounded:
    """A file that refuses large reads: zipfile takes a table of contents of any size at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        if count > MAX_PICKLE:
            raise ValueError("larger than any model's")
        return self._file.read(count)


def _records(file: BinaryIO) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_Bounded(file)) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, struct.error):
        raise ValueError("its table of contents is missing or damaged: cut while downloading?") from None


def _find_pickle(records: list[zipfile.ZipInfo], size: int) -> zipfile.ZipInfo:
    """The record that describes the tensors, after everything that two readers could read differently."""
    names = [record.filename for record in records]
    pickles = [record for record in records if record.filename.split("/")[-1] == "data.pkl"]
    if any("code/" in name for name in names):
        raise ValueError("it is a TorchScript program, whose weights cannot be had without its code")
    if not pickles:
        raise ValueError(f"it is a zip archive, but not one of torch's (it holds {', '.join(names[:3])})")
    if len(pickles) > 1 or len(set(names)) < len(names):
        raise ValueError("two of its records have one name")
    if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records):
        raise ValueError("its records are compressed or encrypted, which torch's never are")
    if sum(record.file_size for record in records) > size:
        raise ValueError("its records claim to be larger than the file")
    return pickles[0]


def _span(file: BinaryIO, record: zipfile.ZipInfo, size: int) -> Span:
    if record.header_offset < 0:  # zipfile takes it from the end, where the table says so
        raise ValueError("its table of contents points nowhere")
    file.seek(record.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise ValueError("its table of contents points nowhere")
    name_length, extra_length = struct.unpack("<HH", header[-4:])
    start = record.header_offset + LOCAL_HEADER + name_length + extra_length
    if start + record.file_size > size:
        raise ValueError("a record goes beyond its end")
    return Span(start, start + record.file_size)


def _read(file: BinaryIO, span: Span) -> bytes:
    if span.end - span.start > MAX_PICKLE:
        raise ValueError("its pickle is larger than any model's")
    file.seek(span.start)
    return file.read(span.end - span.start)


def read_legacy(file: BinaryIO, size: int) -> Archive:
    """The archive in a file of `size` bytes that begins with a pickle.

    Raises:
        ValueError: damaged, not one of torch's, or more than weights.
    """
    data = _read(file, Span(0, min(size, MAX_PICKLE)))
    end = 0
    for expected in LEGACY_BEGINNING:
        read = unpickle(data, end)
        if read.value != expected:
            raise ValueError("it is a pickle, but not one that torch.save wrote")
        end = read.end
    machine = unpickle(data, end)
    if not isinstance(machine.value, dict) or machine.value.get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine")
    saved = unpickle(data, machine.end)
    keys = unpickle(data, saved.end)
    if not _are_keys(keys.value, saved.storages):
        raise ValueError("its list of storages is damaged")
    storages, end = {}, keys.end
    for key in keys.value:  # each storage: the number of its elements, and they
        file.seek(end)
        count = file.read(8)
        if len(count) < 8:
            raise ValueError("it ends before its last tensor, so the download was cut; fetch it again")
        start = end + 8
        end = start + int.from_bytes(count, "little") * DTYPES[saved.storages[key].dtype][0]
        storages[key] = Span(start, end)
    if end > size:
        raise ValueError(f"it ends after {size} of {end} bytes, so the download was cut; fetch it again")
    return Archive(saved.value, storages)


def _are_keys(keys: Any, storages: Mapping[str, Storage]) -> bool:
    # texts, before they are looked up: the hash of tuples in tuples overflows the stack
    return isinstance(keys, list) and all(isinstance(key, str) and key in storages for key in keys)
