"""What a model knows least is found, and shown more often."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.diffusion.schedule import Schedule
from sdscratch.models.conditioning import Conditioning
from sdscratch.pictograms import hard_examples
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.hard_examples import (
    LEAST,
    MOST,
    USUAL,
    hard_example_weights,
    kept_weights,
    unexplained_variance,
)
from sdscratch.pictograms.mixtures import FULL, Chooser
from sdscratch.pictograms.scenes import Scene, Thing
from sdscratch.pictograms.vocabulary import BEST_KNOWN, concepts
from sdscratch.training.tasks.architectures import NOISY_END
from sdscratch.training.tasks.diffusion import Diffusion
from support.sprites import disc_table
from support.training import CPU

NAMES = [each.name for each in concepts()]
COMPOSER = Composer(disc_table(), size=32)


def encode(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, 4)


def words(captions: Sequence[str]) -> Tensor:
    return torch.tensor([[[NAMES.index(text)]] for text in captions])


class Oracle(nn.Module):
    """Sees through all noise to what it thinks that each thing looks like."""

    def __init__(self, thought: Tensor) -> None:
        super().__init__()
        self.thought = thought
        self.alphas_bar = torch.from_numpy(Schedule(NOISY_END).alphas_bar).float()

    def forward(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        alpha_bar = self.alphas_bar[timesteps.long()][:, None, None, None]
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        noise = (noisy - signal * self.thought[conditioning.context[:, 0, 0]]) / spread
        return signal * noise - spread * self.thought[conditioning.context[:, 0, 0]]


def test_what_a_model_thinks_of_a_thing_is_compared_with_the_mean_of_all_things() -> None:
    looks = encode(COMPOSER.draw([Scene((Thing(name),)) for name in NAMES]))
    mean = looks.mean(0)
    expected = torch.rand(len(NAMES), generator=torch.Generator().manual_seed(0)) * 1.2
    thought = looks + expected.sqrt()[:, None, None, None] * (mean - looks)
    model = Diffusion(nn.Identity(), Oracle(thought))  # type: ignore[arg-type]
    shares = unexplained_variance(model, NOISY_END, COMPOSER, encode, words, CPU)
    assert list(shares) == NAMES
    torch.testing.assert_close(torch.tensor(list(shares.values())), expected, rtol=1e-3, atol=1e-3)


def test_what_is_known_less_comes_more_often_within_bounds() -> None:
    shares = {"known": 0.0, "usual": USUAL, "twice": 2 * USUAL, "unknown": 1.0, "mistaken": 9.0}
    often = hard_example_weights(shares)
    assert list(often.values()) == sorted(often.values())
    assert (often["known"], often["usual"], often["mistaken"]) == (LEAST, 1.0, MOST)
    assert often["twice"] == pytest.approx(2**hard_examples.STEEPNESS, abs=1e-3)


def test_the_best_known_come_more_often_beside_what_is_known_of_them() -> None:
    first, other = NAMES[BEST_KNOWN - 1], NAMES[BEST_KNOWN]
    often = hard_example_weights({first: USUAL, other: USUAL})
    assert often == {first: hard_examples.KEPT, other: 1.0}


def test_a_run_keeps_the_weights_that_it_began_with(tmp_path: Path) -> None:
    path = tmp_path / "focus.json"
    first = kept_weights(path, lambda: {"dog": USUAL, "jalapeño": 1.0})
    assert first == hard_example_weights({"dog": USUAL, "jalapeño": 1.0})
    assert kept_weights(path, lambda: pytest.fail("measured again")) == first


def test_single_things_come_as_often_as_their_weights_say_and_others_as_the_mixture_says() -> None:
    even = replace(FULL, fame=((len(NAMES), 1.0),), shares={"plain": 0.5, "count": 0.5})
    chooser = Chooser(even, dict.fromkeys(NAMES[:100], 4.0) | dict.fromkeys(NAMES[100:200], 0.5))
    rng = random.Random(0)
    shown: dict[str, Counter[str]] = {"plain": Counter(), "count": Counter()}
    for _ in range(40_000):
        scene = chooser.scene(rng)
        shown[scene.kind][scene.things[0].concept] += 1
    countable = {each.name for each in concepts() if each.countable}

    def mean(kind: str, names: Sequence[str]) -> float:
        asked = [name for name in names if kind == "plain" or name in countable]
        return sum(shown[kind][name] for name in asked) / len(asked)

    often, seldom, usual = NAMES[:100], NAMES[100:200], NAMES[200:]
    assert mean("plain", often) / mean("plain", usual) == pytest.approx(4.0, rel=0.1)
    assert mean("plain", seldom) / mean("plain", usual) == pytest.approx(0.5, rel=0.2)
    assert mean("count", often) / mean("count", usual) == pytest.approx(1.0, rel=0.1)
