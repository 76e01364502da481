"""Text that comes in: prompts, captions, tables, options, tokenizers; one reader for all of them.

UTF-8, with or without the byte-order mark that Windows' programs put before it, or UTF-16 with its own.
Anything else is refused by name, for what is guessed wrong is drawn wrong. This module imports no torch.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["UTF_16", "NotText", "decode", "read_text", "utf_8_lines", "without_end"]

UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)  # the former begins like UTF-16's
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LOOKED_AT = 4096  # bytes that tell UTF-16 without a mark


class NotText(ValueError):
    """Bytes that are no text; the message says which, and what to do."""


def decode(data: bytes, where: str, errors: str = "strict") -> str:
    """The text in bytes, line ends as they are, without a byte-order mark.

    Args:
        where: for the message: `on stdin`, `in captions.csv`.
        errors: what becomes of bytes that are not UTF-8, as `bytes.decode` has it.

    Raises:
        NotText: neither UTF-8 nor UTF-16 with a byte-order mark; says what it is instead.
    """
    if data.startswith(UTF_32):
        raise NotText(f"the text {where} is UTF-32; convert it to UTF-8")
    if data.startswith(UTF_16):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise NotText(
                f"the UTF-16 {where} is broken at byte {error.start + 1}; convert it to UTF-8"
            ) from None
    if _like_utf_16(data[:LOOKED_AT]):
        raise NotText(f"the text {where} is UTF-16 without a byte-order mark; convert it to UTF-8")
    text = data.removeprefix(codecs.BOM_UTF8)
    try:
        return text.decode(errors=errors)
    except UnicodeDecodeError as error:
        place = error.start + len(data) - len(text) + 1
        raise NotText(f"byte {place} {where} is not UTF-8; convert it to UTF-8") from None


def read_text(path: Path) -> str:
    """The text in a file, its line ends as line feeds.

    Raises:
        NotText: as `decode`.
        OSError: it cannot be read.
    """
    return decode(path.read_bytes(), f"in {path}").replace("\r\n", "\n")


@contextmanager
def utf_8_lines(path: Path) -> Iterator[BinaryIO]:
    """A file of text as a stream of UTF-8 bytes without a byte-order mark, however long it is.

    Bytes that are not UTF-8 are left to who reads them: in a table they cost their row only.

    Raises:
        NotText: UTF-32, UTF-16 that is broken, or UTF-16 without a byte-order mark.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
        if start.startswith((*UTF_32, *UTF_16)) or _like_utf_16(start):
            yield io.BytesIO(decode(start + file.read(), f"in {path.name}").encode(errors="surrogatepass"))
            return
        file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        yield file


def without_end(text: str) -> str:
    """A line without the line feed at its end, or the carriage return before it."""
    return text.removesuffix("\n").removesuffix("\r")


def _like_utf_16(data: bytes) -> bool:
    """Whether every second byte of some is 0 and no other is: Latin letters in two bytes each."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    return len(data) >= 4 and min(even, odd) == 0 and max(even, odd) * 4 > len(data)
