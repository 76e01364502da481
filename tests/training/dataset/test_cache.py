"""Caches: right whoever wrote them, and made anew where they are not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.errors import SdscratchError
from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Encoder
from sdscratch.training.dataset.cache import CachedLatents, CachedTexts, TensorStore, fingerprint
from support.folders import captioned, folder_source

CPU = torch.device("cpu")
CONFIG = AutoencoderConfig(8, (1, 1), 1, 4, 0.5, 4)
KEY = "0123456789abcdef"


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(CONFIG).eval()


def latents(root: Path, cache: Path, seed: int = 0, **framing: int) -> CachedLatents:
    source = folder_source(root, **{"center_crop": True, "random_flip": True} | framing)
    return CachedLatents(source, lambda: encoder(seed), CONFIG, cache, CPU)


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*.*")}


def test_cached_latents_are_those_of_the_encoder_bit_for_bit(tmp_path: Path) -> None:
    captioned(tmp_path / "a", 5, ((64, 64), (96, 60)))
    cached = latents(tmp_path / "a", tmp_path / "cache", multiple=16)
    cached.fill()
    assert len(files(tmp_path / "cache")) == 10  # mirrored ones too
    network = encoder()
    for step in range(8):
        batch = cached.source.batch(step, range(2), CPU)
        found = cached(step, range(2))
        assert found.captions == batch.captions
        with torch.no_grad():
            for picture, value in zip(batch.pictures, found.values, strict=True):
                assert torch.equal(network(picture[None]).mean[0] * CONFIG.latent_scale, value)


def test_a_full_cache_needs_no_encoder_and_nothing_is_written_again(tmp_path: Path) -> None:
    captioned(tmp_path / "a", 4)
    latents(tmp_path / "a", tmp_path / "cache").fill()
    before = files(tmp_path / "cache")
    loads = 0

    def load() -> Encoder:
        nonlocal loads
        loads += 1
        return encoder()

    source = folder_source(tmp_path / "a", center_crop=True, random_flip=True)
    cached = CachedLatents(source, load, CONFIG, tmp_path / "cache", CPU)
    cached.fill()
    assert cached.encoder is None
    cached(0, range(2))
    assert (loads, files(tmp_path / "cache")) == (1, before)
    for path in before:
        path.unlink()
    cached(0, range(2))  # a cache that is deleted meanwhile is no reason to stop
    assert loads == 2


def test_processes_share_the_work(tmp_path: Path) -> None:
    captioned(tmp_path / "a", 5)
    reports: list[tuple[int, int]] = []
    cached = latents(tmp_path / "a", tmp_path / "cache")
    cached.fill(0, 2, lambda done, total: reports.append((done, total)))
    first = files(tmp_path / "cache")
    assert reports == [(done, 5) for done in range(1, 6)]
    latents(tmp_path / "a", tmp_path / "cache").fill(1, 2)
    both = files(tmp_path / "cache")
    assert (len(first), len(both)) == (5, 10)
    assert first.items() <= both.items()


def test_latents_are_kept_by_content(tmp_path: Path) -> None:
    captioned(tmp_path / "a", 2)
    latents(tmp_path / "a", tmp_path / "cache").fill()
    before = files(tmp_path / "cache")
    (tmp_path / "a" / "00.png").rename(tmp_path / "a" / "renamed.png")
    (tmp_path / "a" / "00.txt").rename(tmp_path / "a" / "renamed.txt")
    latents(tmp_path / "a", tmp_path / "cache").fill()
    assert files(tmp_path / "cache") == before
    for count, other in ((8, {"seed": 1}), (12, {"resolution": 32})):
        latents(tmp_path / "a", tmp_path / "cache", **other).fill()
        assert len(files(tmp_path / "cache")) == count


def test_a_picture_that_breaks_is_passed_over_and_replaced(tmp_path: Path) -> None:
    captioned(tmp_path / "a", 4)
    path = tmp_path / "a" / "02.png"
    path.write_bytes(path.read_bytes()[:2000])
    cached = latents(tmp_path / "a", tmp_path / "cache", batch=4)
    cached.fill()
    assert list(cached.source.broken) == ["02.png"]
    captions = cached(0, range(4)).captions
    assert captions == cached.source.batch(0, range(4), CPU).captions
    assert "number 2" not in captions


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped bit", "text", "another's", "foreign", "folder"])
def test_what_is_not_ours_is_made_anew(tmp_path: Path, damage: str) -> None:
    store = TensorStore(tmp_path)
    store.write(KEY, torch.arange(6.0).reshape(2, 3))
    path = store.path(KEY)
    data = path.read_bytes()
    if damage == "torn":
        path.write_bytes(data[:-4])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "text":
        path.write_text("not ours")
    elif damage == "another's":
        other = KEY[:-1] + "0"
        store.write(other, torch.zeros(2, 3))
        path.write_bytes(store.path(other).read_bytes())
    elif damage == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        path.unlink()
        path.mkdir()
        assert store.read(KEY) is None
        with pytest.raises(SdscratchError, match="cannot write"):
            store.write(KEY, torch.zeros(1))
        return
    assert store.read(KEY) is None
    made = store.find(KEY, lambda: torch.full((2, 3), 7.0))
    assert torch.equal(made, torch.full((2, 3), 7.0))
    assert torch.equal(store.find(KEY, lambda: pytest.fail("it was kept")), made)


def test_two_writers_and_a_reader_never_see_half_a_file(tmp_path: Path) -> None:
    values = torch.arange(50_000.0)

    def write_often(_: int) -> None:
        store = TensorStore(tmp_path)  # nothing but the folder is shared
        for _ in range(60):
            store.write(KEY, values)

    TensorStore(tmp_path).write(KEY, values)
    reads = 0
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write_often, number) for number in range(2)]
        while not all(writer.done() for writer in writers):
            found = TensorStore(tmp_path).read(KEY)
            assert found is not None
            assert torch.equal(found, values)
            reads += 1
    assert reads > 3
    assert [writer.exception() for writer in writers] == [None, None]
    assert list(tmp_path.rglob("*.part")) == []


def test_texts_are_encoded_once_each(tmp_path: Path) -> None:
    asked: list[str] = []

    def encode(caption: str) -> Tensor:
        asked.append(caption)
        return torch.full((3, 2), float(len(caption)))

    texts = CachedTexts(encode, "one", tmp_path, CPU)
    for _ in range(2):
        assert texts(["a", "", "abc", "a"])[:, 0, 0].tolist() == [1.0, 0.0, 3.0, 1.0]
    assert asked == ["a", "", "abc"]
    CachedTexts(encode, "another", tmp_path, CPU)(["a"])
    assert asked == ["a", "", "abc", "a"]


def test_a_fingerprint_tells_weights_and_shapes_apart() -> None:
    base = encoder()
    prints = {fingerprint(base), fingerprint(encoder(1)), fingerprint(base, CONFIG), fingerprint(base, "x")}
    with torch.no_grad():
        base.conv_in.bias[0] += 1e-6
    assert len(prints | {fingerprint(base)}) == 5
    assert fingerprint(encoder()) in prints
