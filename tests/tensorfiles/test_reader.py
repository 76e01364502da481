"""The reader gives the right tensors of all that torch.save and safetensors write, and names the rest."""

from __future__ import annotations

import os
import pickle
import re
import struct
import tracemalloc
import zipfile
from collections import Counter, OrderedDict, defaultdict
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.errors import CheckpointError
from sdscratch.tensorfiles.header import DTYPES
from sdscratch.tensorfiles.reader import TensorInfo, open_tensors
from sdscratch.tensorfiles.unpickle import MAX_PICKLE
from support.hostile import (
    WEIGHT,
    as_legacy,
    as_zip,
    call,
    checkpoint,
    name,
    storage,
    tensor,
    tuple_of,
    value,
)

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def of_every_type() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: (torch.randn(3, 2) * 9).to(getattr(torch, dtype)) for name, (_, dtype) in DTYPES.items()}


def of_every_view() -> dict[str, Tensor]:
    """Tensors that share storages, in every way that a state_dict can hold them."""
    base = torch.arange(60.0).reshape(10, 6)
    buffer = base.half()
    return {
        "whole": base,
        "again": base,
        "transposed": base.t(),
        "part": base[2:4, 1:],
        "every third": base[::3, ::2],
        "repeated": base[0, :1].expand(5, 1),
        "scalar": torch.tensor(3.0),
        "one of many": base[4, 2],
        "empty": torch.zeros(0, 3),
        "number of batches": torch.tensor(7),
        "parameter": torch.nn.Parameter(buffer[3]),
        "with attributes": _with_attribute(torch.ones(2)),
        "parameter with attributes": _with_attribute(torch.nn.Parameter(torch.ones(3))),
    }


def _with_attribute(tensor: Tensor) -> Tensor:
    tensor.note = "x"  # type: ignore[attr-defined]
    return tensor


def assert_same(path: Path, expected: dict[str, Tensor]) -> None:
    """The file's tensors are these, bit for bit."""
    with open_tensors(path) as file:
        assert list(file.tensors) == list(expected)
        for key, tensor in expected.items():
            read = file.read(key)
            assert file.tensors[key].shape == tuple(tensor.shape)
            assert getattr(torch, DTYPES[file.tensors[key].dtype][1]) == read.dtype == tensor.dtype
            assert read.shape == tensor.shape
            assert not read.requires_grad
            assert _bits(read) == _bits(tensor.detach())


def _bits(tensor: Tensor) -> list[int]:
    whole: list[int] = tensor.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8).tolist()
    return whole if tensor.numel() else []


def save(content: Any, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def test_safetensors_of_every_type(tmp_path: Path) -> None:
    tensors = of_every_type()
    save_file(tensors, tmp_path / "x.ckpt", metadata={"a": "b"})  # the extension does not matter
    with open_tensors(tmp_path / "x.ckpt") as file:
        assert file.metadata == {"a": "b"}
        assert file.kind == "safetensors file"
    assert_same(tmp_path / "x.ckpt", dict.fromkeys(file.tensors, torch.empty(0)) | tensors)


def test_safetensors_whose_elements_are_not_aligned(tmp_path: Path) -> None:
    header = (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    )
    (tmp_path / "x").write_bytes(
        struct.pack("<Q", len(header)) + header + b"\x07" + struct.pack("<2f", 1.5, -2)
    )
    assert_same(tmp_path / "x", {"a": torch.tensor([7], dtype=torch.uint8), "b": torch.tensor([1.5, -2])})


@LEGACY
def test_torch_files_of_every_type(legacy: bool, tmp_path: Path) -> None:
    assert_same(save(of_every_type(), tmp_path / "x", legacy), of_every_type())


@LEGACY
def test_torch_files_with_every_view(legacy: bool, tmp_path: Path) -> None:
    assert_same(save(of_every_view(), tmp_path / "x", legacy), of_every_view())


@LEGACY
def test_a_lightning_checkpoint_gives_its_state_dict(legacy: bool, tmp_path: Path) -> None:
    weights = of_every_view()
    adam = {"state": {0: {"step": torch.tensor(9.0)}}, "param_groups": [{"betas": (0.9, 1e-3)}]}
    content = {
        "epoch": 3,
        "global_step": 875000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": OrderedDict(weights),
        "callbacks": {Counter: {"best": torch.tensor(1.0)}, "seen": {1, 2}, "raw": b"\xff\0"},
        "optimizer_states": [adam],
        "lr_schedulers": [defaultdict(list, a=[1.5])],
    }
    path = save(content, tmp_path / "x", legacy)
    assert_same(path, weights)
    assert open_tensors(path).ignored == tuple(key for key in content if key != "state_dict")


def test_a_state_dict_in_a_state_dict(tmp_path: Path) -> None:
    inner = {"a": torch.ones(2), "note": "x"}
    path = save({"epoch": 1, "state_dict": {"step": 2, "state_dict": inner}}, tmp_path / "x")
    assert_same(path, {"a": torch.ones(2)})
    assert open_tensors(path).ignored == ("epoch", "step", "note")


def test_the_state_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    assert_same(save(module.state_dict(), tmp_path / "x"), dict(module.state_dict()))


@LEGACY
@pytest.mark.parametrize("container", [dict, torch.nn.ParameterDict])
def test_an_embeddings_dicts_are_joined_by_dots(container: Any, legacy: bool, tmp_path: Path) -> None:
    vectors = torch.nn.Parameter(torch.randn(2, 768))
    content = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": container({"*": vectors}),
        "name": "cat",
        "step": 500,
    }
    path = save(content, tmp_path / "cat.pt", legacy)
    assert_same(path, {"string_to_token.*": torch.tensor(265), "string_to_param.*": vectors})
    assert open_tensors(path).ignored == ("name", "step")


FOREIGN_CLASSES = (
    "numpy.core.multiarray:scalar",
    "numpy:ndarray",
    "numpy.core.multiarray:_reconstruct",
    "pytorch_lightning.callbacks.model_checkpoint:ModelCheckpoint",
    "_codecs:encode",
    "__builtin__:set",
)


@pytest.mark.parametrize("path", FOREIGN_CLASSES)
def test_known_foreign_objects_stay_inert(path: str, tmp_path: Path) -> None:
    """As a dict's key, called, made new, and given state and items: nothing of it is imported or kept."""
    foreign = name(*path.split(":"))
    used = (
        b"}" + foreign + value(1) + b"s"
        + call(foreign, value("f8"), value((1, 2))) + value((3, "<")) + b"b" + value("k") + value(1) + b"s"
        + foreign + b")\x81" + b"\x86"
    )  # fmt: skip
    as_zip(tmp_path / "x", checkpoint(tuple_of(used)))
    assert_same(tmp_path / "x", {"weight": torch.tensor([[1.0, 2], [3, 4]])})


def test_the_first_form_of_a_tensor(tmp_path: Path) -> None:
    parts = (storage(), value(1), value((3,)), value((1,)))
    as_zip(tmp_path / "x", checkpoint(value(1), call(name("torch._utils", "_rebuild_tensor"), *parts)))
    assert_same(tmp_path / "x", {"weight": torch.tensor([2.0, 3, 4])})


def test_a_legacy_storage_that_is_part_of_another(tmp_path: Path) -> None:
    identity = [value("storage"), name("torch", "FloatStorage"), value("0"), value("cpu"), value(4)]
    part = tuple_of(*identity, value(("part", 1, 3))) + b"Q"
    as_legacy(tmp_path / "x", checkpoint(value(1), tensor(part, 1, (2,), (1,))))
    assert_same(tmp_path / "x", {"weight": torch.tensor([3.0, 4])})
    as_legacy(tmp_path / "x", checkpoint(value(1), tensor(part, 2, (2,), (1,))))
    with pytest.raises(CheckpointError, match="larger than its storage"):
        open_tensors(tmp_path / "x")


def test_opening_reads_descriptions_only(tmp_path: Path) -> None:
    """A sparse file of 8 GB opens like any other; reading one tensor touches its part alone."""
    header = (
        b'{"a":{"dtype":"F32","shape":[2147483648],"data_offsets":[0,8589934592]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[8589934592,8589934600]}}'
    )
    with (tmp_path / "x").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2**33 + 8)
    assert open_tensors(tmp_path / "x").read("b").tolist() == [0, 0]


def test_what_is_read_can_be_changed_without_changing_the_file(tmp_path: Path) -> None:
    path = save({"a": torch.ones(2)}, tmp_path / "x")
    before = path.read_bytes()
    with open_tensors(path) as file:
        changed = file.read("a").zero_()
    assert changed.tolist() == [0, 0]  # still there when the file is closed
    assert path.read_bytes() == before


def resident(kind: str) -> int:
    """Bytes of this process that are anonymous (RssAnon) or pages of files (RssFile)."""
    status = Path("/proc/self/status")
    if not status.exists() or kind not in status.read_text():
        pytest.skip("this system does not tell")
    return int(re.search(rf"{kind}:\s*(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]


def test_what_is_released_is_out_of_memory_and_read_again(tmp_path: Path) -> None:
    tensors = {name: torch.randn(1000, 1000) for name in ("a", "b")}
    with open_tensors(save(tensors, tmp_path / "x")) as file:
        read = file.read("a")
        assert torch.equal(read, tensors["a"])
        before = resident("RssFile")
        file.release("a")
        assert before - resident("RssFile") > 3.5e6
        assert torch.equal(read, tensors["a"])
        neighbour = file.read("b").zero_()
        file.release("a")
        assert not neighbour.any()  # the pages that both share are left alone
        file.release("b")
        assert torch.equal(neighbour[100:-100], tensors["b"][100:-100])


def test_reading_ahead_changes_nothing(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(300), "b": torch.randn(200_000), "none": torch.zeros(0, 3)}
    path = save(tensors, tmp_path / "x")
    with open_tensors(path) as file:
        file.read_ahead(["b", "a", "none"])
        for name, tensor in tensors.items():
            file.release(name)
            assert torch.equal(file.read(name), tensor)
        path.unlink()
        file.read_ahead(["a"])  # whether the file can be read is for `read` to say


def test_a_file_that_shrank_is_refused(tmp_path: Path) -> None:
    path = save({"a": torch.ones(200)}, tmp_path / "x")
    file = open_tensors(path)
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match="mapped"):
        file.read("a")


def test_a_file_name_need_not_be_utf8(tmp_path: Path) -> None:
    try:
        path = save({"a": torch.ones(2)}, tmp_path / "x").rename(tmp_path / os.fsdecode(b"\xff"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert open_tensors(path).read("a").tolist() == [1, 1]


FOREIGN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "zeros": (b"\0" * 1000, "unfinished download"),
    "a web page": (b"\n<!DOCTYPE html><html>", "a web page"),
    "a bare web page": (b"<html><body>404", "a web page"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    "a PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture"),
    "a JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture"),
    "a WebP": (b"RIFF\x1a\0\0\0WEBPVP8 ", "a picture"),
    "a GGUF": (b"GGUF\x03\0\0\0", "a damaged or unknown GGUF file"),
    "a gzip": (b"\x1f\x8b\x08\0", "a compressed archive"),
    "a tar": (b"x".ljust(257, b"\0") + b"ustar\0", "a tar archive"),
    "an empty zip": (b"PK\x05\x06" + b"\0" * 18, "an empty zip"),
    "JSON": (b'{"a": 1}', "a JSON file"),
    "a protocol 0 pickle": (b"cos\nsystem\n(S'true'\ntR.", "a pickle"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "text": (b"just some words", "no file of weights"),
    "a plain pickle": (pickle.dumps({"a": 1}, 2), "not one that torch.save wrote"),
    "a plain pickle of protocol 4": (pickle.dumps({"a": 1}, 4), "protocol 4"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_weights_is_named(case: str, tmp_path: Path) -> None:
    content, words = FOREIGN[case]
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_tensors(tmp_path / "model.safetensors")
    assert str(caught.value).isprintable()


def test_folders_pipes_and_missing_files_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        ("", "a folder"),
        ("pipe", "no regular file"),
        ("no", "cannot be read"),
        ("\0", "no file name"),
    ):
        with pytest.raises(CheckpointError, match=words):
            open_tensors(tmp_path / path)


def test_protocol_4_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "x", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="protocol 4"):
        open_tensors(tmp_path / "x")


def test_protocol_3_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "raw": b"\xff"}, tmp_path / "x", pickle_protocol=3)
    assert_same(tmp_path / "x", {"a": torch.ones(1)})


def rezip(source: Path, target: Path, change: Any) -> None:
    """Copy a zip's records, as (name, content) pairs that `change` may alter; more of them are welcome."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for record, content in change([(info.filename, old.read(info)) for info in old.infolist()]):
            new.writestr(record, content)


ZIPS: dict[str, tuple[Any, str]] = {
    "a second data.pkl": (lambda r: [*r, ("other/data.pkl", r[0][1])], "one name"),
    "no data.pkl": (lambda r: r[1:], "not one of torch's"),
    "a storage that is missing": (lambda r: [x for x in r if not x[0].endswith("data/0")], "not in it"),
    "a storage that is cut": (lambda r: [(n, c[:7] if n.endswith("data/0") else c) for n, c in r], "larger"),
    "big-endian": (lambda r: [(n, b"big" if n.endswith("byteorder") else c) for n, c in r], "big-endian"),
    "TorchScript": (lambda r: [*r, ("x/code/__torch__.py", b""), ("x/constants.pkl", b"")], "TorchScript"),
    "pictures": (lambda r: [("a.png", b"")], "not one of torch's"),
}  # fmt: skip


@pytest.mark.parametrize("case", ZIPS)
def test_a_zip_that_is_not_quite_torchs_is_refused(case: str, tmp_path: Path) -> None:
    change, words = ZIPS[case]
    rezip(save({"a": torch.ones(2)}, tmp_path / "x"), tmp_path / "y", change)
    with pytest.raises(CheckpointError, match=words):
        open_tensors(tmp_path / "y")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    rezip(save({"a": torch.ones(2)}, tmp_path / "x"), tmp_path / "y", lambda r: [*r, r[-1]])
    with pytest.raises(CheckpointError, match="one name"):
        open_tensors(tmp_path / "y")


def test_a_zips_table_of_contents_is_not_read_at_any_size(tmp_path: Path) -> None:
    size = 2 * MAX_PICKLE
    with (tmp_path / "x").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, size, 0, 0))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="table of contents"):
        open_tensors(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < MAX_PICKLE
    tracemalloc.stop()


def test_records_that_lie_upon_each_other_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("archive/data.pkl", checkpoint(value(1)))
        archive.writestr("archive/data/0", WEIGHT * 1000)
        for index in (1, 2):
            again = copy(archive.getinfo("archive/data/0"))
            again.filename = f"archive/data/{index}"
            archive.filelist.append(again)
    with pytest.raises(CheckpointError, match="claim to be larger"):
        open_tensors(tmp_path / "x")


def test_a_table_of_contents_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("archive/data.pkl", checkpoint(value(1)))
        archive.writestr("archive/data/0", WEIGHT)
        archive.getinfo("archive/data/0").header_offset += 1
    with pytest.raises(CheckpointError, match="points nowhere"):
        open_tensors(tmp_path / "x")


def test_a_tensor_that_is_conjugated_lazily_is_refused(tmp_path: Path) -> None:
    path = save({"a": torch.ones(2, dtype=torch.complex64).conj()}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="no plain storage"):
        open_tensors(path)


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    save({"a": torch.zeros(10**6)}, tmp_path / "x")
    with (
        zipfile.ZipFile(tmp_path / "x") as old,
        zipfile.ZipFile(tmp_path / "y", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(CheckpointError, match="compressed"):
        open_tensors(tmp_path / "y")


@LEGACY
def test_a_cut_file_is_refused_wherever_it_is_cut(legacy: bool, tmp_path: Path) -> None:
    whole = save({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "x", legacy).read_bytes()
    for size in range(0, len(whole), 5):
        (tmp_path / "x").write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            open_tensors(tmp_path / "x")


def test_a_legacy_storage_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    as_legacy(tmp_path / "x", checkpoint(value(1)))
    raw = (tmp_path / "x").read_bytes()
    for count in (5, 2**40, 2**62, 2**64 - 1):
        (tmp_path / "x").write_bytes(raw[: -len(WEIGHT) - 8] + struct.pack("<Q", count) + WEIGHT)
        with pytest.raises(CheckpointError):
            open_tensors(tmp_path / "x")


@pytest.mark.parametrize("form", ["zip", "legacy"])
@given(data=st.data())
@settings(max_examples=300)
def test_changed_bytes_give_tensors_or_a_checkpoint_error(
    form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"changed.{form}"
    save({"state_dict": {"a": torch.ones(2), "b": torch.ones(3).half()}, "epoch": 3}, path, form == "legacy")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with suppress(CheckpointError), open_tensors(path) as file:
        for key, info in file.tensors.items():
            assert TensorInfo(info.dtype, tuple(file.read(key).clone().shape)) == info


@given(instructions=st.binary(max_size=200))
@settings(max_examples=300)
def test_any_pickle_gives_tensors_or_a_checkpoint_error(
    instructions: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    as_zip(path, b"\x80\x02" + instructions + b".")
    with suppress(CheckpointError):
        open_tensors(path)
