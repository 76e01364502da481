"""A pickle read as data: a small stack machine that makes only texts, numbers, lists, dicts and `Storage`s.

A pickle is a program. Python's own machine imports whatever it names and calls it; this one knows the
instructions that `torch.save` writes (protocol 2, and 3's bytes) and the globals that `inert` names.
Nothing is imported, nothing of a stranger's is called, and time and memory are bounded by the length of the
pickle: dicts keep texts as keys only, for hashing a tuple of the same tuple twice, sixty deep, never ends.
This module imports no torch.
"""

from __future__ import annotations

import pickle as op
import struct
from dataclasses import dataclass
from typing import Any

from sdscratch.show import printable
from sdscratch.tensorfiles.header import MAX_NAME
from sdscratch.tensorfiles.inert import GLOBALS, ElementType, Module, Opaque, Recipe, Storage

__all__ = ["MAX_PICKLE", "Unpickled", "unpickle"]

MAX_PICKLE = 16 << 20  # bytes; SD 1.x with EMA weights and an optimizer's state needs less than one million
MAX_INSTRUCTIONS = 500_000  # some 35 a tensor
MAX_ARGUMENTS = 16

CONSTANTS: dict[bytes, Any] = {op.NONE: None, op.NEWTRUE: True, op.NEWFALSE: False, op.EMPTY_TUPLE: ()}
NUMBERS = {op.BININT: "<i", op.BININT1: "<B", op.BININT2: "<H", op.BINFLOAT: ">d"}
TEXTS = {op.BINUNICODE: "<I", op.SHORT_BINSTRING: "<B", op.BINSTRING: "<I"}  # how their length is written
BYTES = {op.LONG1: "<B", op.SHORT_BINBYTES: "<B", op.BINBYTES: "<I"}
PUTS = {op.BINPUT: "<B", op.LONG_BINPUT: "<I"}
GETS = {op.BINGET: "<B", op.LONG_BINGET: "<I"}
SHORT_TUPLES = {op.TUPLE1: 1, op.TUPLE2: 2, op.TUPLE3: 3}


@dataclass(frozen=True)
class Unpickled:
    """What one pickle describes, the storages it refers to by their keys, and the byte where it ends."""

    value: Any
    storages: dict[str, Storage]
    end: int


def unpickle(data: bytes, start: int = 0) -> Unpickled:
    """The inert value that the pickle at byte `start` of `data` describes.

    Raises:
        ValueError: damaged, or more than weights: says what is wrong in words that follow "…: ".
    """
    machine = _Machine(data, start)
    try:
        return Unpickled(machine.run(), machine.storages, machine.position)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, struct.error) as error:
        raise ValueError("its pickle is damaged or cut") from error


class _Machine:
    """One run over one pickle; every exception but ValueError means that the pickle makes no sense."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.position = start
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            code = self._take(1)
            if code == op.STOP:
                return self.stack.pop()
            self._step(code)
        raise ValueError("its pickle is longer than any model's")

    def _take(self, count: int) -> bytes:
        taken = self.data[self.position : self.position + count]
        if len(taken) < count:
            raise ValueError("its pickle is cut, so the download may be incomplete")
        self.position += count
        return taken

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        line, newline, _ = self.data[self.position : self.position + MAX_NAME].partition(b"\n")
        self.position += len(line) + len(newline)
        return line.decode()

    def _since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _step(self, code: bytes) -> None:
        """Do one instruction: here those that push something and are most of a pickle, below the others."""
        stack = self.stack
        if code in CONSTANTS:
            stack.append(CONSTANTS[code])
        elif code in NUMBERS:
            stack.append(self._number(NUMBERS[code]))
        elif code in TEXTS:
            text = self._take(self._number(TEXTS[code]))
            # the short strings are Python 2's
            stack.append(text.decode("utf-8" if code == op.BINUNICODE else "latin-1"))
        elif code in BYTES:
            raw = self._take(self._number(BYTES[code]))
            stack.append(int.from_bytes(raw, "little", signed=True) if code == op.LONG1 else raw)
        elif code in PUTS:
            self.memo[self._number(PUTS[code])] = stack[-1]
        elif code in GETS:
            stack.append(self.memo[self._number(GETS[code])])
        elif code in SHORT_TUPLES:
            items = [stack.pop() for _ in range(SHORT_TUPLES[code])]
            stack.append(tuple(reversed(items)))
        else:
            self._combine(code)

    def _combine(self, code: bytes) -> None:
        stack = self.stack
        match code:
            case op.MARK:
                self.marks.append(len(stack))
            case op.TUPLE:
                stack.append(tuple(self._since_mark()))
            case op.EMPTY_LIST:
                stack.append([])
            case op.EMPTY_DICT:
                stack.append({})
            case op.APPEND:
                _append(stack[-2], [stack.pop()])
            case op.APPENDS:
                items = self._since_mark()
                _append(stack[-1], items)
            case op.SETITEM:
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case op.SETITEMS:
                items = self._since_mark()
                _set_items(stack[-1], items)
            case op.GLOBAL:
                stack.append(_find(self._line(), self._line()))
            case op.REDUCE | op.NEWOBJ:
                arguments, recipe = stack.pop(), stack.pop()
                stack.append(_call(recipe, arguments))
            case op.BUILD:
                state = stack.pop()
                if isinstance(stack[-1], Module):
                    stack[-1].state = state
            case op.BINPERSID:
                stack.append(self._refer(stack.pop()))
            case op.PROTO:
                version = self._number("<B")
                if version not in (2, 3):
                    raise ValueError(
                        f"its pickle is of protocol {version}, torch.save's own is 2; save it again with that"
                    )
            case _:
                raise ValueError(f"its pickle has the instruction {code!r}, which torch.save never writes")

    def _refer(self, identity: Any) -> Any:
        """What a persistent id stands for: a storage or, in old files, a module's class with its source."""
        match identity:
            case ("module", Recipe(), _, _):
                return identity[1]
            case ("storage", ElementType(dtype), str(key), _, int(elements)):
                part = None
            case ("storage", ElementType(dtype), str(key), _, int(elements), part):
                pass
            case _:
                raise ValueError("its pickle refers to something other than a storage")
        self.storages[key] = _storage(key, dtype, elements, part)
        return self.storages[key]


def _append(target: Any, items: list[Any]) -> None:
    if not isinstance(target, Opaque):
        target += items  # only a list takes a list


def _set_items(target: Any, items: list[Any]) -> None:
    if isinstance(target, Opaque):
        return
    if type(target) is not dict or len(items) % 2:
        raise TypeError("not a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str):  # weights have names; classes and numbers are the keys of other things
            if len(key) > MAX_NAME:
                raise ValueError(f"it holds a name of {len(key)} characters")
            target[key] = value


def _call(recipe: Any, arguments: Any) -> Any:
    if not isinstance(recipe, Recipe) or type(arguments) is not tuple or len(arguments) > MAX_ARGUMENTS:
        raise TypeError("not a call")
    return recipe.make(*arguments)


def _find(module: str, name: str) -> Recipe | ElementType:
    path = f"{module}.{name}"
    if path not in GLOBALS:
        raise ValueError(
            f"its pickle names the global {printable(path)}, which no weights need and which may run code; "
            "look for the same model as .safetensors"
        )
    return GLOBALS[path]


def _storage(key: str, dtype: str, elements: int, part: Any) -> Storage:
    """A storage of so many elements or, in old files, a part of it: (another key, start, length)."""
    match part:
        case None if elements >= 0:
            return Storage(key, dtype, elements)
        case (_, int(start), int(length)) if 0 <= start <= start + length <= elements:
            return Storage(key, dtype, length, start)
    raise ValueError("its pickle refers to an impossible storage")
