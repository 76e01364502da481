"""What the page is made of, piece by piece: what is kept, steps as sums, words, equations, sources."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import sdscratch
from sdscratch.diffusion.catalogue import SAMPLERS as CATALOGUE
from sdscratch.diffusion.samplers import SAMPLERS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.explain.equations import math as displayed
from sdscratch.explain.equations import over, root
from sdscratch.explain.glossary import GLOSSARY, marked, words
from sdscratch.explain.hooks import Attentions, attention_weights, sides, summary
from sdscratch.explain.inline import one_sided, tiles, two_sided
from sdscratch.explain.reading import END, START, words_of_stage
from sdscratch.explain.sources import source_of
from sdscratch.explain.texts import MOST_WORDS, PAPERS, STAGES, stage_texts
from sdscratch.explain.thinned import Thinned
from sdscratch.explain.updates import update_of
from sdscratch.models.config import ScheduleConfig
from sdscratch.models.unet import UNet
from sdscratch.text.reading import plan_prompt
from support.checkpoints import tiny_tokenizer
from support.markdown import ROOT

LINEAR = ("euler", "ddim", "dpm++2m", "heun", "lms", "deis", "unipc", "dpm2")  # without fresh noise


@pytest.mark.parametrize("count", [1, 2, 3, 20, 32, 33, 100, 1000])
def test_what_is_kept_is_even_and_has_both_ends(count: int) -> None:
    kept: Thinned[int] = Thinned(32)
    for number in range(count):
        kept.add(number)
        assert len(kept) <= 32
    found = [index for index, _ in kept.items()]
    assert kept.values() == found
    assert (found[0], found[-1]) == (0, count - 1)
    strides = {b - a for a, b in pairwise(found[:-1])}
    assert len(strides) <= 1
    assert len(found) >= min(count, 16)


@pytest.mark.parametrize("sampler", [*LINEAR, "ddpm", "euler_a", "dpm++2s_a", "lcm"])
def test_a_step_as_a_sum_is_the_step_that_the_sampler_made(sampler: str) -> None:
    path = make_sigma_schedule(Schedule(ScheduleConfig()), sampler, None, 8)
    generator = torch.Generator().manual_seed(1)
    end = torch.randn(1, 4, 16, 16, generator=generator).double()
    asked: list[torch.Tensor] = []

    def denoise(x: torch.Tensor, sigma: float, /) -> torch.Tensor:
        asked.append(end * 0.7 + torch.tanh(x / (1 + sigma)) * 0.3)
        return asked[-1]

    def noise(*interval: float | None) -> torch.Tensor:
        return torch.randn(end.shape, generator=generator).double()

    x = noise() * path.start_scale
    before, earlier = None, []
    for step in SAMPLERS[sampler](denoise, x, path.sigmas, noise):
        sigma, next_sigma = path.sigmas[step.index], path.sigmas[step.index + 1]
        estimates = [each[0] for each in reversed(asked)] or [step.denoised[0]]
        told = update_of(
            sampler,
            x[0],
            [*estimates, *earlier],
            step.latent[0],
            sigma=sigma,
            next_sigma=next_sigma,
            previous_sigma=before,
            eta=0.0,
        )
        total = told.keep * x[0]
        for weight, estimate in zip(told.estimates, [*estimates, *earlier], strict=False):
            total = total + weight * estimate
        rest = float((step.latent[0] - total).square().mean().sqrt())
        if CATALOGUE[sampler].noise == "none":
            # what is measured comes near: lms and unipc go back further than what is given
            assert rest < (1e-9 if told.exact else 1e-4) * max(1.0, sigma)
            assert rest == pytest.approx(told.left, rel=1e-3, abs=1e-12)
        else:
            assert rest == pytest.approx(told.noise, rel=0.15, abs=1e-6)
        assert told.exact == (sampler in ("euler", "ddim", "ddpm", "euler_a", "dpm++2m"))
        before, x, earlier = sigma, step.latent, [step.denoised[0], *earlier][:3]
        asked.clear()


def test_a_formula_that_is_not_what_was_computed_gives_way_to_measuring() -> None:
    x, estimate = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    after = 0.9 * x + 0.2 * estimate
    told = update_of("euler", x, [estimate], after, sigma=2.0, next_sigma=1.0, previous_sigma=None, eta=0.0)
    assert not told.exact
    assert (told.keep, told.estimates[0]) == (pytest.approx(0.9, abs=1e-5), pytest.approx(0.2, abs=1e-5))


def test_pieces_of_a_word_are_one_word_and_every_place_is_in_one() -> None:
    tokenizer = tiny_tokenizer()
    (part,) = plan_prompt("the (doge:1.5) dog, the", tokenizer, steps=1)
    found = words_of_stage(part.stages[0], tokenizer)
    assert [word.key for word in found] == [START, "the", "doge", "dog", ",", "the (2)", END]
    assert sorted(place for word in found for place in word.places) == list(range(77))
    assert [word.weight for word in found[1:-1]] == [1.0, 1.5, 1.0, 1.0, 1.0]
    assert len(found[2].places) > 1


def test_words_of_several_chunks_stand_behind_each_other() -> None:
    tokenizer = tiny_tokenizer()
    (part,) = plan_prompt("dog BREAK cat", tokenizer, steps=1)
    found = {word.key: word.places for word in words_of_stage(part.stages[0], tokenizer)}
    assert found["dog"] == (1,)
    assert found["cat"] == (78,)
    assert found[START] == (0, 77)


def test_attention_is_what_pytorch_computes_from_the_same_queries_and_keys() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 12, 24).unbind()
    heads = [x.unflatten(-1, (3, 8)).transpose(0, 1) for x in (query, key, value)]
    for causal in (False, True):
        expected = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=causal)
        mixed = attention_weights(query, key, 3, causal=causal) @ heads[2]
        torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=0)
    table = torch.zeros(12, 2)
    table[:5, 0], table[5:, 1] = 1.0, 1.0
    seen = Attentions(table)
    seen.add(query, key, 3)
    seen.add(query * 2, key, 3)
    (((h, w), maps),) = seen.maps((4, 3)).items()
    assert (h, w) == (4, 3)
    expected = (attention_weights(query, key, 3) + attention_weights(query * 2, key, 3)).mean(0) / 2
    torch.testing.assert_close(maps[0].flatten(), expected[:, :5].sum(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(maps.sum(0), torch.ones(4, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("positions", "aspect", "expected"),
    [(4096, (64, 64), (64, 64)), (35, (20, 28), (5, 7)), (12, (13, 9), (4, 3)), (1, (1, 1), (1, 1))],
)
def test_the_sides_of_a_resolution_follow_from_its_positions(
    positions: int, aspect: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert sides(positions, aspect) == expected


def test_positions_that_are_no_halving_are_refused() -> None:
    with pytest.raises(ValueError, match="no halving"):
        sides(7, (8, 8))


def test_a_summary_shows_the_channels_that_vary_most() -> None:
    x = torch.zeros(6, 64, 48)
    for channel, size in ((1, 3.0), (2, 1.0), (3, 2.0), (5, 4.0)):
        x[channel, ::2] = size
    told = summary(x)
    assert told.shape == (6, 64, 48)
    assert told.channels == (1, 2, 3, 5)
    assert told.maps.shape == (4, 32, 24)
    assert told.rms == pytest.approx(math.sqrt((9 + 1 + 4 + 16) / 2 / 6))
    torch.testing.assert_close(told.maps[3], torch.full((32, 24), 2.0))


def test_grey_levels_are_the_numbers_to_half_a_level() -> None:
    x = torch.linspace(-3, 3, 64).view(1, 8, 8)
    back = (two_sided(x, 3.0).astype(float) - 128) * 3.0 / 127
    assert np.abs(back - x.numpy()).max() <= 3.0 / 127 / 2 + 1e-6
    assert two_sided(torch.zeros(1, 1, 1), 0.0).item() == 128
    back = one_sided(x.abs(), 3.0).astype(float) * 3.0 / 255
    assert np.abs(back - x.abs().numpy()).max() <= 3.0 / 255 / 2 + 1e-6


def test_tiles_lie_in_rows_with_gaps() -> None:
    levels = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2)
    sheet = tiles(levels, columns=2, background=77)
    assert sheet.shape == (5, 5)
    assert (sheet[:2, :2] == levels[0]).all()
    assert (sheet[:2, 3:] == levels[1]).all()
    assert (sheet[3:, :2] == levels[2]).all()
    assert (sheet[2] == 77).all()


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("sampler", ["dpm++2m", "ddim", "er_sde"])
def test_every_stage_has_its_words_its_paper_and_its_code(sampler: str, guided: bool, init: bool) -> None:
    texts = stage_texts(sampler=sampler, prediction="v", guided=guided, init=init, scale=7.5)
    assert tuple(texts) == STAGES
    for name, text in texts.items():
        assert 20 <= words(text.paragraph) <= MOST_WORDS, name
        assert marked(text.paragraph)  # every term is in the glossary
        assert text.sources, name
        assert set(text.papers) <= set(PAPERS)
        if name not in ("tokens", "picture"):
            assert text.equations, name
        if name != "picture":
            assert text.papers, name
        for thing in text.sources:
            assert source_of(thing).code


def test_the_glossary_says_what_the_docs_say() -> None:
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \| .*? \| (.*?) \| ", (ROOT / "docs" / "glossary.md").read_text(), re.M
    )
    known = dict(rows)
    assert {term: known.get(term) for term in GLOSSARY} == dict(GLOSSARY)


def test_terms_are_marked_and_everything_else_is_text() -> None:
    assert str(marked("a <b> [latents|latent]")) == (
        f'a &lt;b&gt; <a class="term" href="#term-latent" data-meaning="{GLOSSARY["latent"]}">latents</a>'
    )
    with pytest.raises(KeyError):
        marked("a [thing]")


def test_a_source_leads_to_the_lines_that_define_it() -> None:
    source = source_of(UNet.forward)
    assert source.file == "models/unet.py"
    lines = (Path(sdscratch.__file__).parent / source.file).read_text().splitlines()
    assert "def forward" in lines[source.line - 1]
    assert source.code.splitlines()[0].strip() == lines[source.line - 1].strip()
    assert '"""' not in source.code
    assert source.link.startswith("file://")
    assert source.link.endswith(f"/models/unet.py#L{source.line}")


def test_equations_are_mathml() -> None:
    made = str(displayed("σ = ", root(over("1 − ᾱ", "x₀"))))
    assert made == (
        '<math display="block"><mrow><mi>σ</mi><mo>=</mo><msqrt><mrow><mfrac><mrow><mn>1</mn><mo>−</mo>'
        "<mi>ᾱ</mi></mrow><mrow><msub><mrow><mi>x</mi></mrow><mrow><mn>0</mn></mrow></msub></mrow></mfrac>"
        "</mrow></msqrt></mrow></math>"
    )
