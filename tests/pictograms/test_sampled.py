"""Latents as the sampler leaves them: what is drawn, when it is drawn anew, and how a run goes on with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from sdscratch.diffusion.schedule import Schedule
from sdscratch.errors import SdscratchError
from sdscratch.models.conditioning import Conditioning
from sdscratch.options import Defaults
from sdscratch.pictograms import sampled
from sdscratch.pictograms.sampled import LEFT, Example, SampledLatents, redrawing
from sdscratch.training.tasks.architectures import NOISY_END
from sdscratch.training.tasks.diffusion import Diffusion
from support.training import CPU, Squares

DEFAULTS = Defaults(width=32, height=32, steps=20, cfg_scale=2.5, sampler="dpm++2m", scheduler="trailing")


class Oracle(nn.Module):
    """Sees through all noise to what it thinks that each caption looks like; remembers what it was told."""

    def __init__(self, thought: Tensor) -> None:
        super().__init__()
        self.thought = thought
        self.alphas_bar = torch.from_numpy(Schedule(NOISY_END).alphas_bar).float()
        self.told: list[float] = []
        self.seen: list[Tensor] = []

    def forward(self, noisy: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        self.told.append(float(timesteps[0]))
        self.seen.append(noisy)
        alpha_bar = self.alphas_bar[timesteps.long()][:, None, None, None]
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        thought = self.thought[told.context[:, 0, 0].long()]
        return signal * (noisy - signal * thought) / spread - spread * thought


def words(captions: Sequence[str]) -> Tensor:
    return torch.tensor([[[float(len(text))]] for text in captions])


def test_redrawing_is_image_to_image_under_guidance() -> None:
    rng = torch.Generator().manual_seed(0)
    thought = torch.randn(3, 4, 8, 8, generator=rng)  # of captions of no, one and two letters
    oracle = Oracle(thought)
    redraw = redrawing(Diffusion(nn.Identity(), oracle), NOISY_END, words, DEFAULTS, CPU)  # type: ignore[arg-type]
    latents = torch.randn(2, 4, 8, 8, generator=rng)
    drawn = redraw(latents, ["a", "to"], 10, torch.Generator().manual_seed(5))
    assert oracle.told == [499.0 - 50 * step for step in range(10)]
    expected = thought[0] + 2.5 * (thought[1:] - thought[0])
    assert_close(drawn, expected, rtol=1e-4, atol=1e-4)

    # it began at the render with as much noise as the first of those steps expects
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    alpha_bar = oracle.alphas_bar[499]
    noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
    assert_close(oracle.seen[0], torch.cat([noisy, noisy]), rtol=1e-4, atol=1e-4)


def encode(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, 8)


class Redrawing:
    """Leaves latents as they are, marked by how many steps were left, and counts."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, latents: Tensor, captions: Sequence[str], left: int, rng: torch.Generator) -> Tensor:
        assert len(captions) == len(latents)
        self.calls.append(left)
        return latents + 100 * left + torch.rand((), generator=rng)


def examples(folder: Path, redraw: Redrawing, *, size: int = 4, seed: int = 0) -> SampledLatents:
    return SampledLatents(
        Squares(size=32), encode, redraw, torch.device("cpu"), size=size, seed=seed, folder=folder
    )


def same(one: Example, other: Example) -> None:
    assert_close(one.latents, other.latents, rtol=0, atol=0)
    assert_close(one.pictures, other.pictures, rtol=0, atol=0)


def test_a_batch_is_encoded_renders_and_sampled_ones_each_with_its_picture(tmp_path: Path) -> None:
    example = examples(tmp_path, Redrawing())(3, range(4))
    assert example.latents.shape == (4, 3, 4, 4)
    assert example.pictures.shape == (4, 3, 32, 32)
    marks = (example.latents - encode(example.pictures)).flatten(1)
    assert example.clean == 2
    assert_close(marks[:2], torch.zeros(2, 48))
    for mark in marks[2:]:
        assert float(mark.mean()) // 100 in LEFT
        assert float(mark.std()) < 1e-3  # so the picture is the one that the latent began as
    batch = Squares(size=32).batch(3, range(2), torch.device("cpu"))
    assert_close(example.pictures[:2], batch.pictures)


def test_whoever_asks_gets_the_same_and_a_run_goes_on_with_what_was_drawn(tmp_path: Path) -> None:
    first = Redrawing()
    source = examples(tmp_path / "a", first)
    expected = [source(step, range(4)) for step in range(30)]
    assert 1 <= len(first.calls) <= sampled.FIRST + 30 // source.every

    again = Redrawing()
    resumed = examples(tmp_path / "a", again)
    for step in (29, 7, 12):
        same(resumed(step, range(4)), expected[step])
        for index in range(4):
            part = resumed(step, range(index, index + 1))
            assert_close(part.latents[0], expected[step].latents[index], rtol=0, atol=0)
    assert again.calls == []  # they lay in the folder

    elsewhere = examples(tmp_path / "b", Redrawing())
    same(elsewhere(12, range(4)), expected[12])
    other = examples(tmp_path / "c", Redrawing(), seed=1)(12, range(4))
    assert not torch.equal(other.latents[1:], expected[12].latents[1:])


def test_new_latents_push_out_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "FIRST", 2)
    monkeypatch.setattr(sampled, "NEWEST", 3)
    redraw = Redrawing()
    source = examples(tmp_path, redraw)
    assert source.every == 64  # 16 latents, eight times each, two a step
    seen: dict[float, set[int]] = {}
    for step in range(400):
        part = source(step, range(2, 4))
        for latent, picture in zip(part.latents, part.pictures, strict=True):
            mark = round(float((latent - encode(picture[None])[0]).mean()), 3)
            seen.setdefault(mark, set()).add(step)
    assert len(redraw.calls) == len(seen) == 2 + 399 // 64  # the first, and then one each time
    for steps in seen.values():
        assert max(steps) - min(steps) < 3 * 64
    assert len(source.groups) <= 3 + 1
    assert len(list(tmp_path.iterdir())) <= 3 + 1


def test_large_batches_take_large_groups(tmp_path: Path) -> None:
    source = examples(tmp_path, Redrawing(), size=64)
    assert (source.clean, source.group, source.every) == (32, 64, 16)
    assert len(source(0, range(64)).latents) == 64


def test_a_broken_file_of_latents_is_one_sentence(tmp_path: Path) -> None:
    examples(tmp_path, Redrawing())(0, range(4))
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing of the kind")
    with pytest.raises(SdscratchError, match=r"group-00000.* holds no latents; delete it"):
        examples(tmp_path, Redrawing())(0, range(4))
