"""What stands at which index, without reading any picture."""

from __future__ import annotations

from sdscratch.training.dataset.plan import Plan, View


def test_what_takes_a_broken_pictures_place_is_not_made_until_it_is_asked_for() -> None:
    size = (64, 64)
    plan = Plan({size: range(10**12)}, 4, 0)  # a folder of which no one could make a list
    following = plan.substitutes(View(5, size, (0.1, 0.2), flipped=True))
    assert next(following) == View(6, size, (0.1, 0.2), flipped=True)


def test_a_broken_pictures_place_is_taken_by_each_other_of_its_bucket_in_order() -> None:
    plan = Plan({(64, 64): [3, 8, 1, 9], (32, 64): [2]}, 4, 0)
    assert [view.picture for view in plan.substitutes(View(1, (64, 64)))] == [9, 3, 8]
    assert list(plan.substitutes(View(2, (32, 64)))) == []
