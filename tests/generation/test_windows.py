"""Windows of a latent: blended at every step, cut out of what the U-Net is told, kept in a file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdscratch.errors import UsageError
from sdscratch.generation.journal import WindowJournal
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.generation.windows import Window, Windowed, cropped, windows_of
from sdscratch.models.conditioning import Conditioning
from sdscratch.options import GenerateOptions
from support.checkpoints import TINY
from support.controls import FakeControl


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (64, 64), (5, 17), (100, 33)], ids=str)
@pytest.mark.parametrize("side", [8, 16])
def test_windows_cover_all_and_overlap_by_a_quarter(size: tuple[int, int], side: int) -> None:
    found = windows_of(*size, side)
    seen = torch.zeros(1, 1, *size)
    for window in found:
        assert window.of(seen).shape[2:] == tuple(min(side, length) for length in size)
        window.of(seen).add_(1.0)
    assert seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({(each.top, each.left)[axis] for each in found})
        assert all(b - a <= side - side // 4 for a, b in pairwise(starts))


def test_what_windows_agree_on_is_the_whole() -> None:
    """An estimate that depends on each position alone is blended into itself."""
    x = torch.randn(2, 4, 30, 21, generator=torch.Generator().manual_seed(0))
    blended = Windowed(lambda part, sigma: part.square() / sigma, 8)(x, 2.0)
    assert torch.allclose(blended, x.square() / 2.0, rtol=1e-5, atol=1e-6)


def test_where_windows_differ_one_fades_into_the_other() -> None:
    counts = iter(range(10))

    def numbered(part: Tensor, sigma: float) -> Tensor:
        return torch.full_like(part, float(next(counts)))

    row = Windowed(numbered, 16)(torch.zeros(1, 4, 16, 28), 1.0)[0, 0, 8]
    assert row[:12].eq(0.0).all()
    assert row[16:].eq(1.0).all()
    assert row[11:17].diff().gt(0.0).all()


def test_a_window_as_large_as_the_picture_is_the_picture(pipeline: Pipeline) -> None:
    asked = {"width": 64, "height": 72, "steps": 3, "seed": 7, "sampler": "heun"}
    whole = np.asarray(pipeline.txt2img("an owl", **asked))
    assert np.array_equal(np.asarray(pipeline.txt2img("an owl", window=72, **asked)), whole)
    windows = np.asarray(pipeline.txt2img("an owl", window=64, **asked))
    assert not np.array_equal(windows, whole)
    assert np.array_equal(np.asarray(pipeline.txt2img("an owl", **asked)), whole)


def test_samplers_that_ask_without_the_prompt_do_so_in_windows(pipeline: Pipeline) -> None:
    asked = {"width": 96, "height": 64, "steps": 2, "sampler": "euler_cfg++", "window": 64}
    both = pipeline.txt2img("an owl", seed=7, batch_count=2, batch_size=2, **asked)
    alone = pipeline.txt2img("an owl", seed=8, **asked)
    assert np.array_equal(np.asarray(both[1]), np.asarray(alone))


def test_of_what_the_unet_is_told_it_is_told_of_the_window() -> None:
    window = Window(8, 16, 8, 8, (32, 48))
    hint, level = torch.randn(1, 5, 32, 48), torch.randn(1, 1, 16, 24)
    control = FakeControl(TINY.unet, level, torch.ones(1))
    told = Conditioning(torch.randn(1, 77, 32), concat=hint, controls=(control,))
    cut = cropped(told, window)
    assert torch.equal(cut.context, told.context)
    assert cut.concat is not None
    assert torch.equal(cut.concat, hint[:, :, 8:16, 16:24])
    assert torch.equal(cut.controls[0].tensors[0], level[:, :, 4:8, 8:12])
    assert torch.equal(cut.controls[0].tensors[1], torch.ones(1))
    assert cropped(told, None) is told


def test_deep_features_are_of_one_picture() -> None:
    with pytest.raises(UsageError, match="goes with no --window"):
        GenerateOptions("an owl", window=64, deep_cache=2)


def test_a_journal_gives_what_was_computed_and_computes_what_was_not(tmp_path: Path) -> None:
    path, asked = tmp_path / "a.partial", []

    def run(key: str, values: list[float], stop: int = 99) -> list[float]:
        found = []
        with WindowJournal(path, key) as journal:
            for index, value in enumerate(values):
                if index == stop:
                    break

                def compute(x: Tensor) -> Tensor:
                    asked.append(float(x[0]))
                    return 2 * x

                found.append(float(journal(torch.tensor([value, 1.0]), compute)[0]))
        return found

    assert run("a", [1.0, 2.0, 3.0], stop=2) == [2.0, 4.0]
    assert run("a", [1.0, 2.0, 3.0]) == [2.0, 4.0, 6.0]
    assert asked == [1.0, 2.0, 3.0]
    path.write_bytes(path.read_bytes()[:-3])  # stopped while it wrote
    assert run("a", [1.0, 2.0, 3.0]) == [2.0, 4.0, 6.0]
    assert asked == [1.0, 2.0, 3.0, 3.0]
    assert run("a", [1.0, 5.0, 3.0]) == [2.0, 10.0, 6.0]  # another picture from the second window on
    assert asked[4:] == [5.0, 3.0]
    assert run("b", [1.0]) == [2.0]  # of something else altogether
    assert asked[6:] == [1.0]


def test_a_run_that_was_stopped_goes_on_to_the_same_picture(pipeline: Pipeline, tmp_path: Path) -> None:
    init = Image.effect_noise((96, 64), 80).convert("RGB")
    asked = {"window": 64, "steps": 4, "strength": 0.8, "seed": 1, "sampler": "dpm++2m"}
    whole = pipeline.img2img(init, "an owl", **asked)
    path = tmp_path / "a.partial"
    with WindowJournal(path, "key", stop_at(4)) as journal:
        pipeline.sampling.keep = journal
        with pytest.raises(KeyboardInterrupt):
            pipeline.img2img(init, "an owl", **asked)
    with WindowJournal(path, "key") as journal:
        pipeline.sampling.keep = journal
        again = pipeline.img2img(init, "an owl", **asked)
    pipeline.sampling.keep = None
    assert journal.found == 4
    assert journal.done == 6
    assert np.array_equal(np.asarray(whole), np.asarray(again))


def stop_at(count: int) -> Callable[[int], None]:
    def told(done: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return told
