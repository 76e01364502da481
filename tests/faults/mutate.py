"""Bytes changed so that most of them is still sound: a reader is reached deep inside, not at its door.

Every function takes a generator first, so that a case is told by its number.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = [
    "Mutation",
    "changed_bytes",
    "changed_json",
    "changed_pickle",
    "changed_text",
    "one_of",
]

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]

INTEGERS = (
    *(0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 63, 64, 65, 77, 100, 127, 128, 129, 255, 256, 257, 320, 768),
    *(1000, 1024, 4096, 10**4, 32767, 32768, 65535, 65536, 10**6, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**53, 2**60 - 1, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70, 10**30),
)
TEXTS = (
    "", " ", "\0", "\n", "\r\n", "\x1b[2J", "\u202e", "\ud800", "../../x", "/etc/passwd", "a" * 299,
    "b" * 5000, "nan", "NaN", "inf", "-1", "1e999", "1e-999", "0x10", "true", "null", "{}", "[]", "%s", "{0}", "é",
    "\N{KELVIN SIGN}", "٣", "１２", "²", "\ufeff", "a.b.c", "F32", "BF16", "BOOL", "weight", "1/0", "1..10", "(a:1.5)",
    "<lora:x:1>", "[a:b:0.5]", "{a|b}", "__x__", "__proto__", "state_dict", "C:\\x", "CON", ".", "..", "~", "-",
)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-40, 1e300, 1e308, float("inf"), float("-inf"), float("nan"), 0.1)


def one_of(*mutations: Mutation) -> Mutation:
    """Any of these; one that is named twice comes twice as often."""

    def mutate(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
        return chance.choice(mutations)(chance, data, others)

    return mutate


def changed_bytes(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to a few changes anywhere: bits, numbers of any width, pieces left out, doubled, or of another."""
    out = bytearray(data)
    for _ in range(_few(chance)):
        at = chance.randrange(len(out) + 1)
        length = min(1 << chance.randrange(10), len(out) - at)
        match chance.randrange(10):
            case 0 | 1 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(out):
                out[at] = chance.randrange(256)
            case 3 | 4:
                layout = chance.choice(("<B", "<H", "<I", "<Q", ">H", ">I"))
                size = struct.calcsize(layout)
                number = chance.choice(INTEGERS) % (1 << 8 * size)
                out[at : at + size] = struct.pack(layout, number)
            case 5:
                del out[at : at + length]
            case 6:
                out[at:at] = out[at : at + length] * chance.choice((1, 1, 2, 100))
            case 7:
                out[at:at] = chance.randbytes(length)
            case 8:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                out[at : at + length] = other[start : start + length]
            case _:
                if chance.random() < 0.3:
                    del out[at:]
                elif at < len(out):
                    out[at] ^= 0xFF
    return bytes(out[: max(2 * len(data), 1 << 20)])


def changed_text(chance: Random, text: str) -> str:
    """A text with some characters changed, or a telling one in it."""
    pieces = list(text)
    for _ in range(_few(chance)):
        at = chance.randrange(len(pieces) + 1)
        length = min(1 << chance.randrange(7), len(pieces) - at)
        match chance.randrange(6):
            case 0:
                del pieces[at : at + length]
            case 1:
                pieces[at:at] = chance.choice(TEXTS)
            case 2:
                pieces[at:at] = pieces[at : at + length] * chance.choice((1, 2, 30))
            case 3:
                pieces[at : at + 1] = chance.choice("\0\t\n\r,:;=\"'()[]{}<>|\\#-&é")
            case 4:
                pieces[at : at + length] = str(chance.choice(INTEGERS))
            case _:
                pieces[at : at + length] = str(chance.choice(FLOATS))
    return "".join(pieces[: 1 << 18])


def changed_json(chance: Random, tree: Any) -> Any:
    """A tree of JSON with some of its values, or names, changed."""
    for _ in range(_few(chance)):
        tree = _changed_node(chance, tree, 0)
    return tree


def _changed_node(chance: Random, node: Any, depth: int) -> Any:
    inner = isinstance(node, dict | list) and node
    if inner and depth < 12 and chance.random() < (0.95 if depth == 0 else 0.75):
        key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
        copy = dict(node) if isinstance(node, dict) else list(node)
        roll = chance.random()
        if roll < 0.08:
            del copy[key]
        elif roll < 0.16 and isinstance(copy, dict):
            copy[chance.choice((changed_text(chance, key), chance.choice(TEXTS)))] = copy.pop(key)
        elif roll < 0.2 and isinstance(copy, list):
            copy.insert(key, copy[chance.randrange(len(copy))])
        elif roll < 0.24 and isinstance(copy, dict):
            copy[key] = copy[chance.choice(list(copy))]
        else:
            copy[key] = _changed_node(chance, copy[key], depth + 1)
        return copy
    if isinstance(node, int) and not isinstance(node, bool) and chance.random() < 0.5:
        return node + chance.choice((-1, 1, -2, 2, 8, -8, node, -node))
    if isinstance(node, str) and chance.random() < 0.5:
        return changed_text(chance, node)
    return chance.choice(
        (
            chance.choice(INTEGERS), -chance.choice(INTEGERS), chance.choice(FLOATS), chance.choice(TEXTS),
            None, True, False, [], {}, [node], {"a": node}, [[[node]]], [node] * 70, _deep(chance, node),
        )
    )  # fmt: skip


def _deep(chance: Random, node: Any) -> Any:
    for _ in range(chance.choice((20, 100, 300))):
        node = [node]
    return node


def dumped(tree: Any) -> bytes:
    """As JSON's text; surrogates stand as escapes."""
    try:
        return json.dumps(tree).encode()
    except RecursionError:
        return b"[" * 2000


# --- pickles --------------------------------------------------------------------------------------


def instructions(data: bytes) -> list[bytes]:
    """A pickle's instructions, with what belongs to each; where they make no sense, the rest is one."""
    starts: list[int] = []
    try:
        starts += [place for _, _, place in pickletools.genops(io.BytesIO(data)) if place is not None]
    except Exception:  # it says so in many ways
        if not starts:
            return [data]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def changed_pickle(chance: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A pickle with some of its instructions left out, doubled, swapped, or of another kind."""
    ops = instructions(data)
    for _ in range(_few(chance)):
        at = chance.randrange(len(ops))
        match chance.randrange(8):
            case 0 if len(ops) > 1:
                del ops[at]
            case 1:
                ops.insert(at, chance.choice(ops))
            case 2:
                to = chance.randrange(len(ops))
                ops[at], ops[to] = ops[to], ops[at]
            case 3:
                ops.insert(at, _instruction(chance))
            case 4:
                ops[at] = _instruction(chance)
            case 5:
                ops[at:at] = ops[at : at + chance.choice((2, 4, 8, 20))] * chance.choice((1, 1, 1, 40))
            case _:
                ops[at] = _argument(chance, ops[at])
    return b"".join(ops)[: 1 << 20]


NAMES = (
    "os system", "builtins eval", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    "torch._tensor _rebuild_from_type_v2", "collections OrderedDict", "collections defaultdict", "torch Size",
    "torch.nn.modules.container ParameterDict", "numpy ndarray", "numpy.core.multiarray _reconstruct",
    "torch HalfStorage", "torch float16", "torch.storage UntypedStorage", "builtins set", "_codecs encode",
    "torch._utils _rebuild_tensor_v3", "pytorch_lightning.callbacks ModelCheckpoint", "\x1b[2J \x07",
)  # fmt: skip


def _instruction(chance: Random) -> bytes:
    number = chance.choice(INTEGERS)
    plain = b"(0NKt)]}aeusRbQ.\x85\x86\x87\x88\x89\x81l\x90\x8f12td"
    match chance.randrange(9):
        case 0:
            module, name = chance.choice(NAMES).split(" ")
            return f"c{module}\n{name}\n".encode()
        case 1:
            return b"K" + bytes([number % 256])
        case 2:
            return b"J" + struct.pack("<I", number % 2**32)
        case 3:
            text = chance.choice(TEXTS).encode(errors="surrogatepass")
            return b"X" + struct.pack("<I", len(text)) + text
        case 4:
            size = chance.choice((0, 1, 8, 9, 255))
            return b"\x8a" + bytes([size]) + chance.randbytes(size)
        case 5:
            return chance.choice((b"q", b"h")) + bytes([chance.randrange(8)])
        case 6:
            return chance.choice((b"r", b"j")) + struct.pack("<I", number % 2**32)
        case 7:
            return b"G" + struct.pack(">d", chance.choice(FLOATS))
        case _:
            return bytes([chance.choice(plain) if chance.random() < 0.8 else chance.randrange(256)])


def _argument(chance: Random, op: bytes) -> bytes:
    """An instruction with another argument, of a length that fits."""
    code, rest = op[:1], op[1:]
    if not rest:
        return _instruction(chance)
    if code in (b"K", b"M", b"J", b"q", b"h", b"r", b"j"):
        return code + (chance.choice(INTEGERS) % (1 << 8 * len(rest))).to_bytes(len(rest), "little")
    if code == b"X" and chance.random() < 0.7:
        text = changed_text(chance, rest[4:].decode(errors="replace"))
        raw = text.encode(errors="surrogatepass")
        return code + struct.pack("<I", len(raw)) + raw
    if code == b"c" and chance.random() < 0.5:
        return chance.choice((op[:-1] + b"x\n", op.replace(b"_v2", b"_v3"), op.replace(b"Float", b"Half")))
    return code + changed_bytes(chance, rest, [rest])


def _few(chance: Random) -> int:
    """Mostly one, sometimes up to eight."""
    return chance.choice((1, 1, 1, 1, 2, 2, 3, 8))


def crc(data: bytes) -> bytes:
    """As zip archives and PNGs have it, in four bytes."""
    return struct.pack("<I", zlib.crc32(data))
