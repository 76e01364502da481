"""Buckets and the plan: properties for any pictures, batch and seed."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sdscratch.errors import UsageError
from sdscratch.training.dataset.buckets import bucket_of, bucket_step, bucket_table, fill_buckets, too_small
from sdscratch.training.dataset.plan import Plan

sides = st.integers(1, 5000)
pictures = st.dictionaries(st.integers(0, 999), st.tuples(sides, sides), min_size=1, max_size=60)
batches = st.integers(1, 16)
seeds = st.integers(0, 2**63 - 1)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int]:
    multiple = draw(st.sampled_from([8, 16, 32, 64]))
    return multiple * draw(st.integers(1, 24)), multiple


@given(tables())
def test_a_table_holds_the_square_and_is_symmetric_within_its_limits(of: tuple[int, int]) -> None:
    resolution, multiple = of
    table = bucket_table(resolution, multiple)
    assert (resolution, resolution) in table
    assert set(table) == {(height, width) for width, height in table}
    assert list(table) == sorted(table)
    for width, height in table:
        assert width % multiple == height % multiple == 0
        assert width * height <= resolution**2 < (width + multiple) * (height + multiple)
        assert 0.5 <= width / height <= 2


def test_the_table_of_stable_diffusion() -> None:
    assert bucket_table(512, 64) == ((384, 640), (448, 576), (512, 512), (576, 448), (640, 384))
    for wrong in (500, 32):
        with pytest.raises(UsageError, match="multiple of 64"):
            bucket_table(wrong, 64)


@given(tables())
def test_steps_are_as_coarse_as_an_eighth_allows(of: tuple[int, int]) -> None:
    resolution, multiple = of
    step = bucket_step(resolution, multiple)
    assert resolution % step == step % multiple == 0
    if step > multiple:
        assert step <= resolution / 8
    assert [bucket_step(side, 8) for side in (64, 128, 512, 768, 520)] == [8, 16, 64, 64, 8]


@given(tables(), sides, sides)
def test_no_other_bucket_crops_less(of: tuple[int, int], width: int, height: int) -> None:
    def kept(size: tuple[int, int]) -> float:
        ratio = (size[0] * height) / (size[1] * width)
        return min(ratio, 1 / ratio)

    table = bucket_table(*of)
    own = bucket_of(table, width, height)
    assert kept(own) >= max(map(kept, table)) - 1e-9
    turned = bucket_of(table, height, width)
    assert math.isclose(kept((turned[1], turned[0])), kept(own), rel_tol=1e-9)


def test_a_picture_may_be_made_twice_as_large_and_no_larger() -> None:
    assert not too_small((64, 64), 32, 32)
    assert too_small((64, 64), 31, 500)


@given(pictures, batches)
def test_every_picture_is_in_one_bucket_and_small_buckets_join_others(
    sizes: dict[int, tuple[int, int]], batch: int
) -> None:
    table = bucket_table(512, 64)
    buckets = fill_buckets(sizes, table, batch)
    assert sorted(index for members in buckets.values() for index in members) == sorted(sizes)
    assert set(buckets) <= set(table)
    if len(buckets) > 1:
        assert min(map(len, buckets.values())) >= batch / 2
    if batch == 1:
        assert all(bucket_of(table, *sizes[i]) == size for size, members in buckets.items() for i in members)


@given(pictures, batches, seeds, st.integers(0, 3))
def test_an_epoch_shows_every_picture_once_or_to_fill_a_batch_twice(
    sizes: dict[int, tuple[int, int]], batch: int, seed: int, epoch: int
) -> None:
    assume(2 * len(sizes) >= batch)
    buckets = fill_buckets(sizes, bucket_table(512, 64), batch)
    plan = Plan(buckets, batch, seed)
    steps = range(epoch * plan.steps, (epoch + 1) * plan.steps)
    seen = Counter(index for step in steps for index in plan.batch(step)[1])
    assert set(seen) == set(sizes)
    assert set(seen.values()) <= {1, 2}
    for size, members in buckets.items():
        filled = sum(seen[index] for index in members)
        assert filled == -(-len(members) // batch) * batch
        assert sum(plan.batch(step)[0] == size for step in steps) == filled // batch
    for step in steps:
        size, chosen = plan.batch(step)
        assert len(chosen) == batch
        assert set(chosen) <= set(buckets[size])


@given(pictures, batches, seeds, st.lists(st.integers(0, 200), max_size=10))
def test_a_step_depends_on_the_seed_and_on_nothing_that_came_before(
    sizes: dict[int, tuple[int, int]], batch: int, seed: int, steps: list[int]
) -> None:
    buckets = fill_buckets(sizes, bucket_table(512, 64), batch)
    travelled = Plan(buckets, batch, seed, random_crop=True, random_flip=True)
    for step in steps:
        fresh = Plan(buckets, batch, seed, random_crop=True, random_flip=True)
        assert travelled.batch(step) == fresh.batch(step)
        assert [travelled.view(step, p) for p in range(batch)] == [fresh.view(step, p) for p in range(batch)]


def test_epochs_and_seeds_differ_and_crops_and_flips_are_even() -> None:
    members = {(64, 64): list(range(256))}
    plans = [Plan(members, 8, seed, random_crop=True, random_flip=True) for seed in (0, 1)]
    orders = [[plan.batch(step) for step in range(start, start + 32)] for plan in plans for start in (0, 32)]
    assert len({str(order) for order in orders}) == 4
    views = [plans[0].view(step, index) for step in range(64) for index in range(8)]
    assert 200 < sum(view.flipped for view in views) < 312
    for axis in (0, 1):
        assert 0.45 < sum(view.at[axis] for view in views) / len(views) < 0.55
    plain = Plan(members, 8, 0).view(0, 0)
    assert (plain.at, plain.flipped) == ((0.5, 0.5), False)


def test_the_order_is_the_one_that_runs_began_with() -> None:
    """A run that goes on under another version, or on another machine, must see what it would have seen."""
    plan = Plan({(64, 64): [0, 1, 2, 3, 4]}, 2, 7, random_crop=True, random_flip=True)
    assert [plan.batch(step)[1] for step in range(6)] == [(2, 0), (0, 3), (1, 4), (3, 2), (4, 1), (0, 3)]
    assert plan.view(3, 1).at == pytest.approx((0.3453051252118573, 0.03286792577340303), abs=1e-12)
