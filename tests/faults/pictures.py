"""Pictures and what is written in them, mutated by their structure: chunks, segments, tags, texts."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from faults.hunt import Family
from faults.mutate import INTEGERS, changed_bytes, changed_json, changed_text, dumped, one_of
from faults.samples import INFOTEXTS, records
from sdscratch.errors import ImageError
from sdscratch.images import read_records
from sdscratch.images.read import picture_size, read_picture, read_whole
from support.pictures import gradient

__all__ = ["families"]

PNG = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
LISTED = 300  # chunks or segments of a file that are looked at


def read(path: Path) -> None:
    """As a picture to start from, as one of a dataset, and as one that is asked how it was made."""
    refused = None
    for reader in (picture_size, read_picture, read_whole, read_records):
        try:
            reader(path)
        except ImageError as refusal:
            refused = refusal
    if refused is not None:
        raise refused


# --- PNG ------------------------------------------------------------------------------------------


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of each."""
    found, at = [], len(PNG)
    while at + 8 <= len(data) and len(found) < LISTED:
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    return found


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The inverse, with right lengths and sums."""
    out = [PNG]
    for kind, data in chunks:
        out.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(out)


def changed_png(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A chunk's content changed, packed ones within; or chunks doubled, left out, of another kind."""
    chunks = chunks_of(data)
    if not chunks:
        return changed_bytes(chance, data, others)
    at = chance.randrange(len(chunks))
    kind, inner = chunks[at]
    match chance.randrange(10):
        case 0:
            del chunks[at]
        case 1:
            chunks.insert(chance.randrange(len(chunks) + 1), chunks[at])
        case 2:
            chunks[at] = (
                chance.choice((kind.swapcase(), b"tEXt", b"iCCP", b"eXIf", b"tRNS", b"acTL", b"fcTL")),
                inner,
            )
        case 3:
            words = _words(chance, chance.choice(_texts())).encode(errors="replace")
            key = chance.choice(
                (b"parameters", b"prompt", b"workflow", b"Comment", b"sdscratch", b"invokeai_metadata")
            )
            body = words if chance.random() < 0.5 else b"\0" + zlib.compress(words)
            chunks.insert(1, (b"tEXt" if body is words else b"zTXt", key + b"\0" + body))
        case 4 if kind == b"IDAT":
            chunks[at] = kind, _recompressed(chance, inner)
        case _:
            chunks[at] = kind, _inner(chance, kind, inner)
    return png_of(chunks)


def _inner(chance: Random, kind: bytes, data: bytes) -> bytes:
    if kind == b"IHDR" and chance.random() < 0.6 and len(data) >= 13:
        width, height = (chance.choice((1, 2, 48, 32, *INTEGERS)) % 2**32 for _ in range(2))
        depth, colour = chance.choice((1, 2, 4, 8, 16, 3)), chance.choice((0, 2, 3, 4, 6, 5))
        sides = struct.pack(">II", width, height) if chance.random() < 0.5 else data[:8]
        return sides + bytes([depth, colour]) + data[10:]
    if kind in TEXT_CHUNKS and b"\0" in data and chance.random() < 0.7:
        key, _, rest = data.partition(b"\0")
        if kind == b"tEXt":
            return key + b"\0" + _words(chance, rest.decode("latin-1")).encode("latin-1", "replace")
        skip = 1 if kind == b"zTXt" else len(rest) - len(rest.split(b"\0", 4)[-1])
        return key + b"\0" + rest[:skip] + _recompressed(chance, rest[skip:])
    if kind == b"iCCP" and b"\0\0" in data and chance.random() < 0.7:
        name, _, packed = data.partition(b"\0\0")
        return name + b"\0\0" + _recompressed(chance, packed)
    return changed_bytes(chance, data, [data])


def _recompressed(chance: Random, packed: bytes) -> bytes:
    try:
        plain = zlib.decompressobj().decompress(packed, 1 << 20)
    except zlib.error:
        return changed_bytes(chance, packed, [packed])
    roll = chance.random()
    if roll < 0.1:
        return zlib.compress(plain + bytes(4 << 20), 1)
    return zlib.compress(changed_bytes(chance, plain, [plain]), 1)


def _texts() -> tuple[str, ...]:
    return (*INFOTEXTS, *(each.decode() for each in records()))


def _words(chance: Random, text: str) -> str:
    """A text changed as JSON where it is some."""
    try:
        return dumped(changed_json(chance, json.loads(text))).decode()
    except (ValueError, RecursionError):
        return changed_text(chance, text)


# --- JPEG -----------------------------------------------------------------------------------------


def segments_of(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Marker and content of each segment, and the rest."""
    found, at = [], 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data) and len(found) < LISTED:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            break
        found.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + max(length, 2)
    return found, data[at:]


def changed_jpeg(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A segment's content changed, or segments moved, doubled, left out, of another kind."""
    segments, rest = segments_of(data)
    if not segments or chance.random() < 0.1:
        return changed_bytes(chance, data, others)
    at = chance.randrange(len(segments))
    marker, inner = segments[at]
    match chance.randrange(8):
        case 0:
            del segments[at]
        case 1:
            segments.insert(chance.randrange(len(segments) + 1), segments[at])
        case 2:
            segments[at] = chance.choice((0xE0, 0xE1, 0xE2, 0xFE, 0xC0, 0xC2, 0xC4, 0xDB, 0xDD, 0xC9)), inner
        case 3:
            rest = rest[:12] + changed_bytes(chance, rest[12:], [rest])
        case _:
            changed = _changed_exif(chance, inner) if inner.startswith(b"Exif") else None
            segments[at] = marker, changed or changed_bytes(chance, inner, [inner])
    out = [b"\xff\xd8"]
    for kind, body in segments:
        out.append(bytes([0xFF, kind]) + struct.pack(">H", (len(body) + 2) & 0xFFFF) + body)
    return b"".join(out) + rest


def _changed_exif(chance: Random, data: bytes) -> bytes:
    """An entry of the first table of tags, or any bytes."""
    tiff = bytearray(data[6:])
    if len(tiff) < 24 or chance.random() < 0.3:
        return data[:6] + changed_bytes(chance, bytes(tiff), [data])
    order = "little" if tiff[:2] == b"II" else "big"
    size = chance.choice((2, 2, 4, 4))
    at = chance.randrange(4, min(len(tiff) - 4, 120))
    number = chance.choice((1, 2, 3, 4, 5, 7, 0x8769, 0x9286, 0x112, at, len(tiff), *INTEGERS))
    tiff[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    return data[:6] + bytes(tiff)


# --- WebP -----------------------------------------------------------------------------------------


def changed_webp(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A chunk's content changed, or chunks moved, doubled, left out, of another kind."""
    chunks, at = [], 12
    while at + 8 <= len(data) and len(chunks) < LISTED:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    if not chunks or chance.random() < 0.1:
        return changed_bytes(chance, data, others)
    at = chance.randrange(len(chunks))
    kind, inner = chunks[at]
    match chance.randrange(6):
        case 0:
            del chunks[at]
        case 1:
            chunks.insert(chance.randrange(len(chunks) + 1), chunks[at])
        case 2:
            chunks[at] = (
                chance.choice((b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"EXIF", b"XMP ", b"ICCP")),
                inner,
            )
        case _ if kind == b"EXIF":
            head = b"" if inner.startswith(b"Exif") else b"Exif\0\0"
            chunks[at] = kind, _changed_exif(chance, head + inner)[len(head) :]
        case _:
            chunks[at] = kind, changed_bytes(chance, inner, [inner])
    body = b"".join(k + struct.pack("<I", len(d)) + d + bytes(len(d) % 2) for k, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


# --- sound ones -----------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def exif_of(text: str) -> bytes:
    """A comment, an orientation and a description."""
    exif = Image.Exif()
    exif[0x112], exif[0x10E] = 6, "a description"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif.tobytes()


def pngs() -> list[bytes]:
    """Of several modes, with texts, a profile, EXIF, a transparent colour."""
    plain = gradient(24, 16)
    info = PngInfo()
    info.add_text("parameters", INFOTEXTS[0])
    info.add_text("sdscratch", records()[1].decode(), zip=True)
    info.add_itxt("workflow", INFOTEXTS[4], zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return [
        saved(plain, "PNG", pnginfo=info),
        saved(plain.convert("P"), "PNG", exif=exif_of(INFOTEXTS[1])),
        saved(plain.convert("RGBA"), "PNG", icc_profile=profile),
        saved(plain.convert("I;16"), "PNG", transparency=1),
        saved(plain.convert("LA"), "PNG"),
        saved(plain.convert("1"), "PNG"),
        saved(plain, "PNG", save_all=True, append_images=[plain.rotate(90)]),
    ]


def jpegs() -> list[bytes]:
    """Plain, progressive, grey, CMYK, with EXIF, a comment and a profile."""
    plain = gradient(24, 16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return [
        saved(plain, "JPEG", exif=exif_of(INFOTEXTS[0]), comment=b"a comment"),
        saved(plain, "JPEG", progressive=True, icc_profile=profile),
        saved(plain.convert("L"), "JPEG"),
        saved(plain.convert("CMYK"), "JPEG"),
    ]


def webps() -> list[bytes]:
    """Lossy, lossless, with transparency, EXIF and a profile; an animation."""
    plain = gradient(24, 16)
    return [
        saved(plain, "WEBP", exif=exif_of(INFOTEXTS[0])),
        saved(plain.convert("RGBA"), "WEBP", lossless=True, xmp=b"<x:xmpmeta/>"),
        saved(plain, "WEBP", save_all=True, append_images=[plain.rotate(90)]),
    ]


def families(folder: Path | None = None) -> dict[str, Family]:
    """By format."""
    return {
        "PNG": Family(pngs(), one_of(*[changed_png] * 4, changed_bytes), read, (ImageError,), "case.png", 2),
        "JPEG": Family(jpegs(), one_of(*[changed_jpeg] * 4, changed_bytes), read, (ImageError,), "case.jpg"),
        "WebP": Family(webps(), one_of(*[changed_webp] * 4, changed_bytes), read, (ImageError,), "case.webp"),
    }
