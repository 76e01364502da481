"""Headers of tensor files: safetensors, torch.save's, GGUF; mutated by their own structure."""

from __future__ import annotations

import io
import json
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as save_tensors

from faults.hunt import Family
from faults.mutate import INTEGERS, changed_bytes, changed_json, changed_pickle, crc, dumped, one_of
from sdscratch.errors import CheckpointError
from sdscratch.tensorfiles.header import BLOCKS
from sdscratch.tensorfiles.identify import identify
from sdscratch.tensorfiles.reader import open_tensors

__all__ = ["families", "gguf_file", "saved", "saved_zip"]

TOUCHED = 3  # tensors of a file whose numbers are read


def read(path: Path) -> None:
    """All that is done with a header: described, told what it is; and a few tensors are read."""
    with open_tensors(path) as file:
        shapes = {name: info.shape for name, info in file.tensors.items()}
        str(identify(shapes))
        for name in list(file.tensors)[:TOUCHED]:
            file.read(name).flatten()[:4].tolist()
            file.start(name)


# --- safetensors ----------------------------------------------------------------------------------


def changed_safetensors(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The header's JSON changed, its length and the data mostly put right again."""
    length = int.from_bytes(data[:8], "little")
    try:
        tree = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return changed_bytes(chance, data, others)
    text, rest = dumped(changed_json(chance, tree)), data[8 + length :]
    if chance.random() < 0.1:
        text = changed_bytes(chance, text, [text])
    if chance.random() < 0.2:  # the data, too
        rest = rest[: chance.randrange(len(rest) + 1)] + bytes(chance.choice((0, 1, 4, 64)))
    said = chance.choice(INTEGERS) % 2**64 if chance.random() < 0.02 else len(text)
    return said.to_bytes(8, "little") + text + rest


def safetensors_seeds() -> list[bytes]:
    """Of several types, with and without metadata, of names that tell a kind."""
    names = (
        "model.diffusion_model.input_blocks.0.0.weight",
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
    )
    types = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn)
    many = {f"{name}{n}": torch.zeros(2, n, dtype=types[n]) for n, name in enumerate(names * 2)}
    return [
        save_tensors({"a": torch.zeros(2, 3)}),
        save_tensors({"emb_params": torch.zeros(2, 4)}, {"format": "pt", "ü": "{}"}),
        save_tensors(
            {"a": torch.zeros(()), "b": torch.zeros(0, 4), "c": torch.zeros(1, 2, 3, 4)}, {"x": "y"}
        ),
        save_tensors(many),
    ]


# --- what torch.save makes ------------------------------------------------------------------------


def saved(tree: Any, *, legacy: bool = False) -> bytes:
    """As torch.save has it."""
    file = io.BytesIO()
    torch.save(tree, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def trees() -> list[Any]:
    """Saved things that users have: a model with its training, an embedding, shared and strided weights."""
    base = torch.arange(12.0).reshape(3, 4)
    model = OrderedDict(a=base, b=base.t(), c=torch.zeros(2, dtype=torch.float16), d=torch.zeros(()))
    return [
        {"state_dict": model, "epoch": 3, "optimizer_states": [{"state": {0: {"step": 1}}}]},
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": torch.zeros(2, 4)},
            "name": "x",
            "step": 500,
        },
        torch.nn.Linear(2, 3).state_dict(),
        {"w": torch.nn.Parameter(torch.zeros(4)), "ids": torch.arange(4), "set": {1, 2}, "size": base.shape},
        {"<x>": torch.zeros(4)},
    ]


def saved_zip(records: Mapping[str, bytes]) -> bytes:
    """Records in a zip archive, stored as they are."""
    out, table = bytearray(), bytearray()
    for name, data in records.items():
        raw = name.encode(errors="surrogatepass")
        sizes = crc(data) + struct.pack("<IIHH", len(data), len(data), len(raw), 0)
        fixed = struct.pack("<HHHHH", 20, 0, 0, 0, 33)
        table += (
            b"PK\x01\x02" + b"\x14\x03" + fixed + sizes + struct.pack("<HHHII", 0, 0, 0, 0, len(out)) + raw
        )
        out += b"PK\x03\x04" + fixed + sizes + raw + data
    end = struct.pack("<HHHHIIH", 0, 0, len(records), len(records), len(table), len(out), 0)
    return bytes(out + table + b"PK\x05\x06" + end)


def records_of(data: bytes) -> dict[str, bytes] | None:
    """What `saved_zip` was given; None where something is otherwise."""
    records, at = {}, 0
    while data[at : at + 4] == b"PK\x03\x04" and at + 30 <= len(data):
        _, size, name, extra = struct.unpack("<IIHH", data[at + 18 : at + 30])
        start = at + 30 + name + extra
        records[data[at + 30 : at + 30 + name].decode(errors="replace")] = data[start : start + size]
        at = start + size
    return records if records and data[at : at + 2] == b"PK" else None


def changed_records(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """An archive whose pickle is changed, or one of its other records, or their names."""
    records = records_of(data)
    if records is None:
        return changed_bytes(chance, data, others)
    pickled = next((name for name in records if name.endswith("data.pkl")), None)
    if pickled is not None and chance.random() < 0.85:
        records[pickled] = changed_pickle(chance, records[pickled])
        return saved_zip(records)
    name = chance.choice(list(records))
    match chance.randrange(4):
        case 0:
            del records[name]
        case 1:
            records[chance.choice((name.upper(), f"{name}x", "x/data.pkl", "code/x", f"../{name}"))] = b"x"
        case 2:
            records[name] = changed_bytes(chance, records[name], [data])
        case _:
            records = dict(chance.sample(list(records.items()), len(records)))
    return saved_zip(records)


def changed_table(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """An archive with a number in its table of contents, or in a record's head, changed."""
    heads = {b"PK\x01\x02": 46, b"PK\x03\x04": 30, b"PK\x05\x06": 22}
    places = [(at, size) for mark, size in heads.items() for at in _all(data, mark)]
    if not places:
        return changed_bytes(chance, data, others)
    at, size = chance.choice(places)
    width = chance.choice((1, 2, 4))
    at += chance.randrange(4, size - width + 1)
    out = bytearray(data)
    old = int.from_bytes(out[at : at + width], "little")
    number = chance.choice((old + 1, old - 1, old ^ (1 << chance.randrange(8 * width)), *INTEGERS))
    out[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out)


def _all(data: bytes, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def slim(data: bytes) -> bytes:
    """torch's archive without the padding between its records, which only makes each case slower."""
    from zipfile import ZipFile

    with ZipFile(io.BytesIO(data)) as archive:
        return saved_zip({name: archive.read(name) for name in archive.namelist()})


# --- GGUF -----------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A few bytes of a header, and whether they are a number."""

    data: bytes
    number: bool = True


def _text(text: str) -> list[Piece]:
    raw = text.encode()
    return [Piece(struct.pack("<Q", len(raw))), Piece(raw, False)]


def gguf_pieces(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, tuple[int, ...], int]]
) -> list[Piece]:
    """A header in pieces; tensors by name: type, sides as they are stored, and where their bytes begin."""
    pieces = [Piece(b"GGUF", False), *(Piece(struct.pack("<I", 3)),)]
    pieces += [Piece(struct.pack("<Q", len(tensors))), Piece(struct.pack("<Q", len(metadata)))]
    for key, value in metadata.items():
        pieces += _text(key)
        match value:
            case str():
                pieces += [Piece(struct.pack("<I", 8)), *_text(value)]
            case int():
                pieces += [Piece(struct.pack("<I", 4)), Piece(struct.pack("<I", value))]
            case float():
                pieces += [Piece(struct.pack("<I", 6)), Piece(struct.pack("<f", value))]
            case list():
                pieces += [Piece(struct.pack("<I", n)) for n in (9, 8)] + [
                    Piece(struct.pack("<Q", len(value)))
                ]
                pieces += [piece for each in value for piece in _text(each)]
    for name, (kind, sides, offset) in tensors.items():
        pieces += [*_text(name), Piece(struct.pack("<I", len(sides)))]
        pieces += [Piece(struct.pack("<Q", side)) for side in sides]
        pieces += [Piece(struct.pack("<I", kind)), Piece(struct.pack("<Q", offset))]
    return pieces


GGUF = (
    gguf_pieces({}, {"a": (0, (4,), 0)}),
    gguf_pieces(
        {"general.architecture": "sd1", "general.alignment": 32, "x": 0.5, "words": ["a", "b"]},
        {"model.diffusion_model.x": (1, (3, 2), 0), "q": (8, (32, 2), 32), "k": (12, (256,), 128)},
    ),
    gguf_pieces(
        {}, {name: (kind, (256,), 0) for kind, name in enumerate(BLOCKS, 2) if kind not in (4, 5, 9)}
    ),
)


def gguf_file(pieces: Sequence[Piece]) -> bytes:
    """The header, and bytes enough behind it."""
    head = b"".join(piece.data for piece in pieces)
    return head + bytes(-len(head) % 32 + 1024)


def changed_gguf(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A header with pieces changed, left out or doubled."""
    pieces = list(chance.choice(GGUF))
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(pieces))
        piece = pieces[at]
        match chance.randrange(8):
            case 0:
                del pieces[at]
            case 1:
                pieces[at:at] = pieces[at : at + chance.choice((1, 2, 4, 8))]
            case _ if piece.number:
                size = len(piece.data)
                old = int.from_bytes(piece.data, "little")
                number = chance.choice((old + 1, old - 1, 2 * old, chance.randrange(40), *INTEGERS))
                pieces[at] = Piece((number % (1 << 8 * size)).to_bytes(size, "little"))
            case _:
                pieces[at] = Piece(changed_bytes(chance, piece.data, [data]), False)
        if not pieces:
            return data
    whole = gguf_file(pieces)
    return whole if chance.random() < 0.8 else whole[: chance.randrange(len(whole))]


def families(folder: Path | None = None) -> dict[str, Family]:
    """Of each form that a file of weights has."""
    kinds = {
        "safetensors": (safetensors_seeds(), one_of(*[changed_safetensors] * 5, changed_bytes), 3),
        "zip": ([slim(saved(tree)) for tree in trees()], one_of(*[changed_records] * 3, changed_table), 3),
        "zip bytes": ([saved(trees()[1])], one_of(changed_bytes, changed_table), 1),
        "pickle": (
            [saved(tree, legacy=True) for tree in trees()],
            one_of(*[changed_pickle] * 4, changed_bytes),
            2,
        ),
        "GGUF": ([gguf_file(pieces) for pieces in GGUF], one_of(*[changed_gguf] * 4, changed_bytes), 1),
    }
    return {
        name: Family(seeds, mutate, read, (CheckpointError,), share=share)
        for name, (seeds, mutate, share) in kinds.items()
    }
