"""Crispness: figures of pictures whose answers can be counted by hand, and the distance of known features."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from sdscratch.images.tensors import to_tensor
from sdscratch.pictograms.crispness import (
    Crispness,
    Looks,
    crispness,
    flat,
    frechet_distance,
    ground,
    levels,
    summary,
)
from sdscratch.pictograms.judge import Classes, Judge, shrunk
from support.judges import NAMES, Squares

SIDE = 64


def picture(values: Tensor) -> Tensor:
    """[3, H, W] levels → [1, 3, H, W] in −1 to 1."""
    return values[None].float() / 127.5 - 1


def of(values: Tensor) -> Crispness:
    (figures,) = crispness(picture(values))
    return figures


def plain(level: int = 255) -> Tensor:
    return torch.full((3, SIDE, SIDE), level)


def test_levels_are_those_of_a_file() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = torch.from_numpy(stored).permute(2, 0, 1)[None].float()
    assert_close(levels(to_tensor(Image.fromarray(stored))), expected, rtol=0, atol=0)
    assert levels(torch.tensor([[[[-1.7, 1.2, 0.4 / 127.5]]]])).tolist() == [[[[0, 255, 128]]]]


@pytest.mark.parametrize(("slope", "is_flat"), [(0, True), (3, True), (4, False)])
def test_a_neighbourhood_is_flat_up_to_six_levels(slope: int, is_flat: bool) -> None:
    """A ramp of 3 a pixel spans 6 in a neighbourhood of 3×3, one of 4 spans 8."""
    ramp = (torch.arange(SIDE) * slope).expand(1, 3, SIDE, SIDE).float()
    for turned in (ramp, ramp.transpose(2, 3)):
        assert flat(turned).shape == (1, SIDE - 2, SIDE - 2)
        assert bool(flat(turned).all()) is is_flat
        assert bool(flat(turned).any()) is is_flat


def test_any_channel_alone_makes_it_rough_and_only_thereabouts() -> None:
    for channel in range(3):
        spotted = plain().float()[None]
        spotted[:, channel, 20, 30] -= 7
        rough = ~flat(spotted)[0]
        assert int(rough.sum()) == 9
        assert bool(rough[18:21, 28:31].all())  # indices count from the first pixel that has neighbours
    alike = plain().float()[None]
    alike[:, :, 20, 30] -= 6  # in each of the channels, 18 together
    assert bool(flat(alike).all())


def test_the_ground_is_what_most_of_the_border_shows() -> None:
    shown = plain().float()
    shown[0], shown[1], shown[2] = 60, 90, 120
    shown[:, 5:50, :40] = 7.0  # a thing that reaches the border on one side
    assert ground(shown[None]).tolist() == [[60, 90, 120]]


def test_shares_of_the_whole_and_of_the_thing() -> None:
    """A red square of 20×20 on white: only what is within two pixels of its edge is rough."""
    shown = plain()
    shown[1:, 10:30, 10:30] = 0
    figures = of(shown)
    assert figures.flat_inside == pytest.approx(18 * 18 / 20**2)
    assert figures.flat == pytest.approx(1 - (22**2 - 18**2) / (SIDE - 2) ** 2)

    shown[0, 10:30, 10:30] -= 30 * (torch.arange(20) % 2)  # striped: no pixel of it is flat
    striped = of(shown)
    assert striped.flat_inside == 0
    assert striped.flat == pytest.approx(1 - 22**2 / (SIDE - 2) ** 2)


def test_what_is_hardly_off_the_ground_is_ground() -> None:
    shown = plain(100)
    shown[:2, 10:30, 10:30] += 20  # 40 together
    assert math.isnan(of(shown).flat_inside)
    shown[2, 10:30, 10:30] += 1
    assert of(shown).flat_inside == pytest.approx(18 * 18 / 20**2)


def test_the_gradient_is_the_99th_percentile_of_steps_to_the_right() -> None:
    """One column's edge is one step of 63 in a row, 1.6 % of them; of half its height, 0.8 %."""
    shown = plain(0)
    shown[0, :, 32:], shown[1, :, 32:], shown[2, :, 32:] = 200, 50, 7
    assert of(shown).gradient == 257
    shown[:, : SIDE // 2] = 0
    assert of(shown).gradient == 0
    assert of(shown.transpose(1, 2)).gradient == 0  # 63 of 64 rows are still


def test_a_picture_does_not_depend_on_its_neighbours_in_a_batch() -> None:
    rng = torch.Generator().manual_seed(0)
    pictures = torch.rand(3, 3, 16, 20, generator=rng) * 2 - 1
    assert crispness(pictures) == [figures for each in pictures for figures in crispness(each[None])]


def test_a_summary_is_the_mean_of_shares_and_the_median_of_gradients() -> None:
    each = [Crispness(0.5, 0.25, 100.0), Crispness(0.7, math.nan, 900.0), Crispness(0.6, 0.75, 300.0)]
    assert summary(each) == Crispness(pytest.approx(0.6), pytest.approx(0.5), 300.0)


def features(mean: Tensor, root: Tensor, count: int = 50) -> Tensor:
    """[count, d] with exactly this mean, and the covariance root · rootᵀ."""
    d = len(mean)
    drawn = torch.randn(count, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    drawn = drawn - drawn.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(drawn.T)), drawn.T, upper=False)
    return (root.double() @ white).T + mean


def test_the_distance_of_known_gaussians() -> None:
    zero, one = torch.zeros(3), torch.tensor([1.0, 2.0, -2.0])
    narrow, wide = torch.eye(3), torch.diag(torch.tensor([2.0, 1.0, 4.0]))
    assert frechet_distance(features(zero, narrow), features(zero, narrow)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features(zero, narrow), features(one, narrow)) == pytest.approx(9)
    # of axes alone it is Σ (σ₁ − σ₂)²
    assert frechet_distance(features(zero, narrow), features(one, wide)) == pytest.approx(9 + 1 + 0 + 9)
    assert frechet_distance(features(zero, wide, 90), features(zero, narrow, 40)) == pytest.approx(10)


def test_the_distance_of_tilted_gaussians() -> None:
    """Reference: the trace of the root from the eigenvalues of the product itself, which is not symmetric."""
    rng = torch.Generator().manual_seed(1)
    roots = [torch.randn(6, 6, generator=rng, dtype=torch.float64) for _ in range(2)]
    first, second = (features(torch.zeros(6), root) for root in roots)
    covariances = [root @ root.T for root in roots]
    values = np.linalg.eigvals((covariances[0] @ covariances[1]).numpy())
    expected = float(sum(each.trace() for each in covariances)) - 2 * np.sqrt(values).sum().real
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(second, first) == pytest.approx(expected)


def test_features_that_are_fewer_than_their_numbers_have_a_distance() -> None:
    few = torch.rand(4, 30, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(few, few + 0.5) == pytest.approx(30 / 4, rel=1e-4)


def untrained() -> Judge:
    torch.manual_seed(0)
    return Judge(Classes(tuple((name,) for name in NAMES))).eval()


def test_the_judges_features_are_what_its_answers_come_from() -> None:
    judge = untrained()
    scenes = [Squares().scene(0, index) for index in range(3)]
    pictures = Squares().draw(scenes).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    found = judge.features(pictures)
    with torch.no_grad():
        assert_close(found, judge.trunk(shrunk(pictures)).mean((2, 3)))
    assert found.shape == (3, 256)


def test_pictures_beside_renders_are_plain_data() -> None:
    judge = untrained()
    scenes = [Squares().scene(0, index) for index in range(12)]
    renders = Squares().draw(scenes)
    soft = torch.nn.functional.avg_pool2d(renders, 5, stride=1, padding=2, count_include_pad=False)

    def looks(*parts: Tensor) -> Looks:
        gathered = Looks(judge)
        for part in parts:
            gathered.add(part)
        return gathered

    same = looks(renders[:5], renders[5:]).beside(looks(renders))
    assert same["pictures"] == 12
    assert same["drawn"] == same["renders"]
    assert same["frechet_distance"] == pytest.approx(0, abs=1e-6)

    blurred = looks(soft).beside(looks(renders))
    assert blurred["drawn"]["flat"] < blurred["renders"]["flat"]
    assert blurred["drawn"]["gradient"] < blurred["renders"]["gradient"] / 2
    assert blurred["frechet_distance"] > 100 * same["frechet_distance"]
    assert json.loads(json.dumps(blurred)) == blurred

    alone = looks(torch.ones(1, 3, SIDE, SIDE)).beside(looks(renders[:1]))
    assert alone["frechet_distance"] is None  # one picture has no covariance
    assert alone["drawn"] == {"flat": 1.0, "flat_inside": None, "gradient": 0.0}
