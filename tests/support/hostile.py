"""Pickles and archives that mean harm, put together from their instructions.

Each `Attack` is one value inside a checkpoint that would otherwise be sound. `event` names what Python's own
unpickler would do with it (an audit event's beginning; None where it does nothing but break or swell): the
control in test_hostile shows that the hook would have seen it.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
WEIGHT = struct.pack("<4f", 1, 2, 3, 4)


def value(plain: object) -> bytes:
    """The instructions that push a plain value, and leave the memo alone."""
    return pickletools.optimize(pickle.dumps(plain, 2))[2:-1]


def name(module: str, attribute: str) -> bytes:
    """Push a global."""
    return b"c" + f"{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    """Call what `function` pushes with what `arguments` push."""
    return function + b"(" + b"".join(arguments) + b"t" + b"R"


def calls(path: str, *arguments: object) -> bytes:
    """Call the global `module:attribute` with plain values."""
    return call(name(*path.split(":")), *map(value, arguments))


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def storage(
    kind: str = "torch:FloatStorage", key: object = "0", elements: object = 4, *more: object
) -> bytes:
    """Push a storage by its persistent id."""
    identity = [value("storage"), name(*kind.split(":")), value(key), value("cpu"), value(elements)]
    return tuple_of(*identity, *map(value, more)) + b"Q"


def tensor(
    storage: bytes = storage(),
    offset: object = 0,
    shape: object = (2, 2),
    strides: object = (2, 1),
    *more: bytes,
) -> bytes:
    """Push a tensor; shape, strides and offset may lie."""
    rebuild = name("torch._utils", "_rebuild_tensor_v3" if more else "_rebuild_tensor_v2")
    hooks = call(name("collections", "OrderedDict"))
    return call(rebuild, storage, value(offset), value(shape), value(strides), value(False), hooks, *more)


def checkpoint(evil: bytes, weight: bytes = tensor()) -> bytes:
    """A pickle of {"weight": a tensor, "evil": …}."""
    return b"\x80\x02}(" + value("weight") + weight + value("evil") + evil + b"u."


@dataclass(frozen=True)
class Attack:
    """A whole pickle, and what it does to a reader that trusts it."""

    pickle: bytes
    event: str | None = None


def inside(evil: bytes, event: str | None = None) -> Attack:
    return Attack(checkpoint(evil), event)


COMMAND = "echo pwned > pwned"
CODE = "open('pwned', 'w').write('pwned')"
OS_SYSTEM = calls("os:system", COMMAND)
IMPORT_OS = calls("importlib:import_module", "os")

# Code that Python's unpickler would run.
RUNNING: dict[str, Attack] = {
    "os.system": inside(OS_SYSTEM, "os.system"),
    "posix.system": inside(calls("posix:system", COMMAND), "os.system"),
    "nt.system": inside(calls("nt:system", COMMAND), "import"),
    "os.popen": inside(calls("os:popen", COMMAND), "open"),
    "os.execv": inside(calls("os:execv", "/bin/true", ("true",)), "os.exec"),
    "os.remove": inside(calls("os:remove", "nothing"), "os.remove"),
    "os.putenv": inside(calls("os:putenv", "A", "B"), "os.putenv"),
    "subprocess.Popen": inside(calls("subprocess:Popen", ["true"]), "subprocess.Popen"),
    "subprocess.check_output": inside(calls("subprocess:check_output", ["true"]), "open"),
    "pty.spawn": inside(calls("pty:spawn", "true"), "pty.spawn"),
    "builtins.eval": inside(calls("builtins:eval", CODE), "compile"),
    "builtins.exec": inside(calls("builtins:exec", CODE), "compile"),
    "__builtin__.eval, of Python 2": inside(calls("__builtin__:eval", CODE), "compile"),
    "builtins.compile": inside(calls("builtins:compile", CODE, "x", "exec"), "compile"),
    "builtins.open": inside(calls("builtins:open", "pwned", "w"), "open"),
    "builtins.__import__": inside(calls("builtins:__import__", "no_such_module"), "import"),
    "io.open": inside(calls("io:open", "pwned", "w"), "open"),
    "getattr of an import": inside(
        call(call(name("builtins", "getattr"), IMPORT_OS, value("system")), value(COMMAND)), "os.system"
    ),
    "operator.methodcaller": inside(
        call(calls("operator:methodcaller", "system", COMMAND), IMPORT_OS), "os.system"
    ),
    "operator.attrgetter": inside(
        call(call(calls("operator:attrgetter", "system"), IMPORT_OS), value(COMMAND)), "os.system"
    ),
    "functools.partial": inside(
        call(call(name("functools", "partial"), name("os", "system"), value(COMMAND))), "os.system"
    ),
    "map and list": inside(
        call(name("builtins", "list"), call(name("builtins", "map"), name("os", "system"), value([COMMAND]))),
        "os.system",
    ),
    "a pickle in a pickle": inside(calls("pickle:loads", b"\x80\x02" + OS_SYSTEM + b"."), "os.system"),
    "marshal.loads": inside(calls("marshal:loads", b"N"), "marshal.loads"),
    "runpy.run_path": inside(calls("runpy:run_path", "/nowhere"), "open"),
    "timeit.timeit": inside(calls("timeit:timeit", CODE), "compile"),
    "cProfile.run": inside(calls("cProfile:run", CODE), "sys.setprofile"),
    "pdb.run": inside(calls("pdb:run", CODE), "pdb.Pdb"),
    "code.InteractiveInterpreter": inside(
        call(
            call(name("builtins", "getattr"), calls("code:InteractiveInterpreter"), value("runsource")),
            value(CODE),
        ),
        "compile",
    ),
    "ctypes.CDLL": inside(calls("ctypes:CDLL", "libc.so.6"), "ctypes.dlopen"),
    "webbrowser": inside(
        call(calls("operator:methodcaller", "open", "x"), calls("webbrowser:GenericBrowser", "true")),
        "webbrowser.open",
    ),
    "socket.create_connection": inside(calls("socket:create_connection", ("127.0.0.1", 9)), "socket."),
    "urllib.request.urlopen": inside(calls("urllib.request:urlopen", "http://127.0.0.1:9"), "urllib.Request"),
    "shutil.rmtree": inside(calls("shutil:rmtree", "nothing"), "shutil.rmtree"),
    "tempfile.mkdtemp": inside(calls("tempfile:mkdtemp"), "open"),
    "sys.settrace": inside(calls("sys:settrace", None), "sys.settrace"),
    "torch.hub.load": inside(calls("torch.hub:load", "a/b", "c", "local"), "os.mkdir"),
    "torch.load without weights_only": inside(
        calls("torch:load", "nested.pt", None, None), "open"
    ),
    "torch.jit.load": inside(calls("torch.jit:load", "nested.pt"), "pickle.find_class"),
    "torch.package": inside(calls("torch.package:PackageImporter", "nested.pt"), "pickle.find_class"),
    "numpy.load with pickles": inside(calls("numpy:load", "nested.npy", None, True), "open"),
    "numpy.fromfile": inside(calls("numpy:fromfile", "/etc/hostname"), "open"),
    "numpy runstring": inside(calls("numpy.testing._private.utils:runstring", CODE, {}), "compile"),
    "a dict's key": inside(b"}" + OS_SYSTEM + b"K\x01s", "os.system"),
    "a set's item": inside(call(name("builtins", "set"), b"](" + OS_SYSTEM + b"e"), "os.system"),
    "a list 500 deep": inside(b"]" * 500 + OS_SYSTEM + b"a" * 500, "os.system"),
    "a tensor's storage": Attack(checkpoint(value(1), tensor(OS_SYSTEM)), "os.system"),
    "a tensor's hooks": Attack(
        checkpoint(
            call(
                name("torch._utils", "_rebuild_tensor_v2"),
                *(storage(), value(0), value((4,)), value((1,)), value(False), OS_SYSTEM),
            )
        ),
        "os.system",
    ),
    "state of an OrderedDict": inside(
        call(name("collections", "OrderedDict")) + OS_SYSTEM + b"b", "os.system"
    ),
    "an object of a class": inside(
        name("subprocess", "Popen") + tuple_of(value(["true"])) + b"\x81"
        + tuple_of(value(None), value({"args": ["true"]})) + b"b",
        "pickle.find_class",
    ),
    "__setstate__ given by the state": inside(
        call(name("argparse", "Namespace"))
        + b"}(" + value("__setstate__") + name("os", "system") + b"ub" + value(COMMAND) + b"b",
        "os.system",
    ),
    "INST": inside(b"(" + value(COMMAND) + b"ios\nsystem\n", "os.system"),
    "OBJ": inside(b"(" + name("os", "system") + value(COMMAND) + b"o", "os.system"),
    "STACK_GLOBAL of protocol 4": Attack(
        b"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93(" + value(COMMAND) + b"tR.", "os.system"
    ),
    "protocol 0": Attack(b"cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntR.", "os.system"),
    "before the weights": Attack(b"\x80\x02" + OS_SYSTEM + b"0" + checkpoint(value(1))[2:], "os.system"),
    "instead of the weights": Attack(b"\x80\x02" + OS_SYSTEM + b".", "os.system"),
    "a default factory": inside(
        call(name("collections", "defaultdict"), name("os", "getcwd")), "pickle.find_class"
    ),
}  # fmt: skip

DOUBLING = b"q\0h\0\x86" * 60  # a tuple of itself twice, 60 times over: 2⁶⁰ items
PROTOCOL_4_TENSOR = pickle.dumps({"weight": 1}, 4)

# Nothing that runs: lies, bombs and nonsense, which must be refused all the same.
BREAKING: dict[str, Attack] = {
    "nothing": Attack(b"\x80\x02"),
    "only STOP": Attack(b"\x80\x02."),
    "no STOP": Attack(checkpoint(value(1))[:-1]),
    "cut in a text": Attack(b"\x80\x02X\x10\0\0\0abc"),
    "a text of 4 GB": inside(b"X\xff\xff\xff\xffabc"),
    "bytes of 4 GB": inside(b"B\xff\xff\xff\xffabc"),
    "bytes of 2⁶⁴": inside(b"\x8e" + b"\xff" * 8),
    "a number of 2 GB": inside(b"\x8b\xff\xff\xff\x7f1"),
    "a number of a million digits": inside(b"L" + b"9" * 10**6 + b"L\n"),
    "pop of nothing": Attack(b"\x80\x020000."),
    "a tuple without a mark": Attack(b"\x80\x02t."),
    "an unknown instruction": inside(b"\xff"),
    "protocol 5": Attack(pickle.dumps({"weight": bytearray(4)}, 5)),
    "protocol 4, plain": Attack(PROTOCOL_4_TENSOR),
    "protocol 255": Attack(b"\x80\xff}."),
    "EXT1": inside(b"\x82\x01"),
    "EXT2": inside(b"\x83\x01\x02"),
    "EXT4": inside(b"\x84\x01\x02\x03\x04"),
    "PERSID as text": inside(b"Pstorage\n"),
    "a persistent id that is a number": inside(value(1) + b"Q"),
    "a persistent id that is a dict": inside(b"}Q"),
    "a persistent id without parts": inside(b")Q"),
    "a persistent id of a module": inside(tuple_of(value("module"), *map(value, ("a", "b", "c"))) + b"Q"),
    "a persistent id that is a text": inside(value("storage") + b"Q"),
    "a storage's key that is a tuple": inside(storage(key=(1, 2))),
    "a storage's key that is a path": Attack(checkpoint(value(1), tensor(storage(key="../../passwd")))),
    "a storage that is not there": Attack(checkpoint(value(1), tensor(storage(key="1")))),
    "a storage larger than its record": Attack(
        checkpoint(value(1), tensor(storage(elements=2**40), 0, (2**40,), (1,)))
    ),
    "a storage of fewer than no elements": Attack(checkpoint(value(1), tensor(storage(elements=-4)))),
    "a storage counted in texts": Attack(checkpoint(value(1), tensor(storage(elements="4")))),
    "a storage without a type": Attack(checkpoint(value(1), tensor(storage("collections:OrderedDict")))),
    "a tensor beyond its storage": Attack(checkpoint(value(1), tensor(shape=(3, 2)))),
    "a tensor that begins beyond it": Attack(checkpoint(value(1), tensor(offset=1))),
    "a tensor that begins before it": Attack(checkpoint(value(1), tensor(offset=-1))),
    "strides beyond it": Attack(checkpoint(value(1), tensor(strides=(4, 1)))),
    "strides backwards": Attack(checkpoint(value(1), tensor(offset=3, strides=(-2, -1)))),
    "a negative shape": Attack(checkpoint(value(1), tensor(shape=(-2, -2)))),
    "a shape of truth values": Attack(checkpoint(value(1), tensor(shape=(True, True)))),
    "a shape in floats": Attack(checkpoint(value(1), tensor(shape=(2.0, 2.0)))),
    "a shape of 2⁷⁰": Attack(checkpoint(value(1), tensor(shape=(2**70,), strides=(0,)))),
    "a shape of none by 2⁶³": Attack(checkpoint(value(1), tensor(shape=(0, 2**63), strides=(1, 1)))),
    "a terabyte of one element": Attack(checkpoint(value(1), tensor(shape=(2**20, 2**20), strides=(0, 0)))),
    "a thousand dimensions": Attack(checkpoint(value(1), tensor(shape=(1,) * 1000, strides=(1,) * 1000))),
    "a shape without strides": Attack(checkpoint(value(1), tensor(strides=()))),
    "a shape that is a list": Attack(checkpoint(value(1), tensor(shape=[2, 2]))),
    "doubles seen in floats": Attack(
        checkpoint(value(1), tensor(storage(), 0, (4,), (1,), name("torch", "float64")))
    ),
    "a dtype that is none": Attack(
        checkpoint(value(1), tensor(storage(), 0, (4,), (1,), name("collections", "OrderedDict")))
    ),
    "a recipe that is none": Attack(
        checkpoint(value(1), call(name("torch._tensor", "_rebuild_from_type_v2"), *map(value, (1, 2, (), 4))))
    ),
    "a recipe of itself": Attack(
        checkpoint(
            value(1),
            name("torch._tensor", "_rebuild_from_type_v2") + b"q\x01"
            + tuple_of(b"h\x01", value(0), value((1, 2, 3, 4)), value(0)) + b"R",
        )
    ),
    "a call of a text": inside(call(value("os.system"), value(COMMAND))),
    "a call with a list": inside(name("collections", "OrderedDict") + b"]R"),
    "a call with too much": inside(name("numpy", "dtype") + value(tuple(range(1000))) + b"R"),
    "an OrderedDict with contents": inside(calls("collections:OrderedDict", [["a", 1]])),
    "items of a number": inside(value(1) + value("a") + value(2) + b"s"),
    "items without a partner": inside(b"}(" + value("a") + b"u"),
    "append to a tuple": inside(b")K\x01a"),
    "a memo that was never put": inside(b"h\x07"),
    "a name of a megabyte": inside(b"}" + value("x" * 10**6) + b"K\x01s"),
    "names of nonsense": inside(b"c\xff\xfe\n\xff\n"),
    "half a surrogate pair": inside(b"}X\x03\0\0\0\xed\xa0\x80K\x01s"),
    "a global's name with an escape": inside(name("os\x1b[2J", "sys\x07tem")),
    "no dict": Attack(b"\x80\x02" + tensor() + b"."),
    "no tensors": Attack(b"\x80\x02" + value({"epoch": 1}) + b"."),
    "itself as its state_dict": Attack(b"\x80\x02}q\0" + value("state_dict") + b"h\0s."),
    "dicts in dicts, each a thousand times": Attack(
        b"\x80\x02}q\0("
        + b"".join(value(str(i)) + b"h\0" for i in range(1000))
        + value("weight") + tensor() + b"u."
    ),
    "a call of bytearray for 2 GB": inside(calls("builtins:bytearray", 1 << 31)),
    "a tensor without a storage": Attack(checkpoint(value(1), tensor(value(None)))),
    "half a million dicts": inside(b"(" + b"}" * 600_000 + b"t"),
}  # fmt: skip

# Odd, but without effect on what is read: the weight beside it is read as ever.
HARMLESS: dict[str, Attack] = {
    "a key that takes for ever to hash": inside(b"})" + DOUBLING + b"K\x01s"),
    "a key too deep to hash": inside(b"})" + b"\x85" * 200_000 + b"K\x01s"),
    "a list that holds itself": inside(b"]q\0h\0a"),
    "a dict that holds itself": inside(b"}q\0" + value("a") + b"h\0s"),
    "a ParameterDict that is its own state": inside(
        call(name("torch.nn.modules.container", "ParameterDict")) + b"q\0h\0b"
    ),
    "a memo of four thousand millions": inside(b"]r\xff\xff\xff\xff"),
    "a tensor of 2⁴⁰ elements, unbuilt": inside(calls("torch:Tensor", 1 << 40)),
    "a set of itself twice": inside(call(name("builtins", "set"), b"](" + b")" + DOUBLING + b"e")),
    "a number of 255 bytes": inside(b"\x8a\xff" + b"\x7f" * 255),
    "state for a scalar": inside(call(name("numpy", "dtype"), value("f8")) + value((3, "<")) + b"b"),
    "attributes for a recipe": inside(name("collections", "OrderedDict") + value({"make": 1}) + b"b"),
}


def as_zip(path: Path, data: bytes, records: dict[str, bytes] | None = None) -> None:
    """Write a checkpoint as torch.save does today, round the pickle `data`."""
    more = {"version": b"3\n", "byteorder": b"little", "data/0": WEIGHT} if records is None else records
    with zipfile.ZipFile(path, "w") as archive:
        for record, content in {"data.pkl": data, **more}.items():
            archive.writestr(f"archive/{record}", content)


def as_legacy(path: Path, data: bytes) -> None:
    """Write a checkpoint as torch.save did before 1.6."""
    system = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {}}
    beginning = b"".join(pickle.dumps(part, 2) for part in (MAGIC, VERSION, system))
    path.write_bytes(beginning + data + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + WEIGHT)


def as_bare(path: Path, data: bytes) -> None:
    """Write the pickle and nothing else."""
    path.write_bytes(data)


FORMS: dict[str, Callable[[Path, bytes], None]] = {"zip": as_zip, "legacy": as_legacy, "bare": as_bare}
