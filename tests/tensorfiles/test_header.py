"""A safetensors header is believed only as far as the file bears it out."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from sdscratch.errors import CheckpointError
from sdscratch.tensorfiles.header import Span, TensorInfo, read_header, read_metadata

F32_2 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path: Path, header: object, data: bytes = b"\0" * 8) -> Path:
    """A file with this header; text and bytes are written as they are."""
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    raw = text.encode() if isinstance(text, str) else text
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.bfloat16), "c": torch.zeros(0, 4)}
    save_file(tensors, path, metadata={"format": "pt", "ü": "\n"})
    header = read_header(path)
    assert header.tensors == {
        "a": TensorInfo("F32", (2, 3)),
        "b": TensorInfo("BF16", ()),
        "c": TensorInfo("F32", (0, 4)),
    }
    assert {name: span.end - span.start for name, span in header.spans.items()} == {"a": 24, "b": 2, "c": 0}
    assert max(span.end for span in header.spans.values()) == path.stat().st_size
    assert read_metadata(path) == {"format": "pt", "ü": "\n"}


def test_tensors_may_stand_in_any_order(tmp_path: Path) -> None:
    second = {"dtype": "U8", "shape": [8], "data_offsets": [8, 16]}
    path = write(tmp_path / "x", {"b": second, "a": F32_2}, b"\0" * 16)
    start = path.stat().st_size - 16
    assert read_header(path).spans == {"b": Span(start + 8, start + 16), "a": Span(start, start + 8)}


def test_a_file_may_hold_metadata_alone(tmp_path: Path) -> None:
    assert read_metadata(write(tmp_path / "x", {"__metadata__": {"a": "b"}}, b"")) == {"a": "b"}


def test_the_header_is_read_without_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": F32_2})
    program = (
        "import sys; from sdscratch.tensorfiles.reader import open_tensors\n"
        "from sdscratch.tensorfiles.identify import identify\n"
        f"open_tensors({str(path)!r}); identify({{}}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def tensor(**changes: object) -> dict[str, Any]:
    return {"a": {**F32_2, **changes}}


HOSTILE: dict[str, tuple[object, bytes]] = {
    "a list": ([F32_2], b"\0" * 8),
    "no JSON": ("{'a': 1}", b""),
    "cut JSON": ('{"a": {"dtype"', b""),
    "no UTF-8": (b'{"\xff": 1}', b""),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), b""),
    "half a surrogate pair": ('{"\\ud800": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"\0" * 8),
    "a name twice": ('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},' * 2 + '"a":{}}', b"\0" * 8),
    "dtype twice": ('{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"\0" * 8),
    "metadata twice": ('{"__metadata__":{},"__metadata__":{}}', b""),
    "a long name": ({"x" * 10_000: F32_2}, b"\0" * 8),
    "nested a million deep": ('{"a":' + "[" * 10**6, b""),
    "a million digits": ('{"a":' + "9" * 10**6 + "}", b""),
    "NaN": ('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', b"\0" * 8),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "b": F32_2}, b"\0" * 8),
    "metadata in metadata": ({"__metadata__": {"a": {}}}, b""),
    "metadata that is a list": ({"__metadata__": ["a"]}, b""),
    "a tensor that is a number": ({"a": 1}, b""),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    "an unknown field": (tensor(more=1), b"\0" * 8),
    "an unknown dtype": (tensor(dtype="F31"), b"\0" * 8),
    "a dtype that is a list": (tensor(dtype=["F32"]), b"\0" * 8),
    "a shape in floats": (tensor(shape=[2.0]), b"\0" * 8),
    "a shape of truth values": (tensor(shape=[2, True]), b"\0" * 8),
    "a shape that is a number": (tensor(shape=2), b"\0" * 8),
    "a negative shape": (tensor(shape=[-2]), b"\0" * 8),
    "two negative shapes": (tensor(shape=[-2, -1]), b"\0" * 8),
    "none by 2⁶⁴ − 1": (tensor(shape=[0, 2**64 - 1], data_offsets=[0, 0]), b""),
    "none by 2⁶²": (tensor(shape=[0, 2**62], data_offsets=[0, 0]), b""),
    "2³² by 2³²": (tensor(shape=[2**32, 2**32], data_offsets=[0, 0]), b""),
    "a thousand dimensions": (tensor(shape=[2] + [1] * 1000), b"\0" * 8),
    "a shape larger than its place": (tensor(shape=[3]), b"\0" * 8),
    "a shape smaller than its place": (tensor(shape=[1]), b"\0" * 8),
    "one offset": (tensor(data_offsets=[8]), b"\0" * 8),
    "offsets backwards": (tensor(data_offsets=[8, 0]), b"\0" * 8),
    "a negative offset": (tensor(data_offsets=[-8, 0]), b"\0" * 8),
    "offsets beyond the file": (tensor(data_offsets=[2**40, 2**40 + 8]), b"\0" * 8),
    "two in one place": ({"a": F32_2, "b": F32_2}, b"\0" * 8),
    "two that overlap": ({"a": F32_2, "b": {**F32_2, "data_offsets": [4, 12]}}, b"\0" * 12),
    "a gap before": (tensor(data_offsets=[8, 16]), b"\0" * 16),
    "a rest after": ({"a": F32_2}, b"\0" * 9),
    "a rest without tensors": ({}, b"\0" * 9),
    "a byte too few": ({"a": F32_2}, b"\0" * 7),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="x") as caught:
        read_header(write(tmp_path / "x", *HOSTILE[case]))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("length", [0, 1, 17, 2**24 + 1, 2**39, 2**63, 2**64 - 1])
def test_a_lie_about_the_headers_length_is_refused(length: int, tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": F32_2})
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(CheckpointError):
        read_header(path)


def test_names_are_escaped_in_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"\x1b[2J../\u202e\n": {**F32_2, "dtype": "F31"}})
    with pytest.raises(CheckpointError, match=r"\\x1b\[2J\.\./\\u202e\\n") as caught:
        read_header(path)
    assert str(caught.value).isprintable()


def test_a_cut_download_is_called_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": F32_2})
    whole = path.read_bytes()
    for size in range(9, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"download was cut; fetch it again$"):
            read_header(path)


SOUND = {
    "a": F32_2,
    "b": {"dtype": "F16", "shape": [2, 1], "data_offsets": [8, 12]},
    "__metadata__": {"c": "d"},
}


@given(data=st.data())
def test_changed_bytes_give_a_header_or_a_checkpoint_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "changed", SOUND, b"\0" * 12)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        header = read_header(path)
    except CheckpointError:
        return
    assert sum(info.bytes for info in header.tensors.values()) == 12


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(header=JSON | st.dictionaries(st.text(max_size=5), st.fixed_dictionaries(dict.fromkeys(F32_2, JSON))))
@example(header={"a": {**F32_2, "shape": [[]]}})
def test_any_json_gives_a_header_or_a_checkpoint_error(
    header: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "json", header)
    with suppress(CheckpointError):
        assert read_header(path).tensors.keys() == set(header) - {"__metadata__"}  # type: ignore[call-overload]
