"""The prompt-agreement score: which prompts, and what counts as right."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sdscratch.pictograms.agreement import (
    COMPOSITIONS,
    Prompt,
    agreement,
    prompts,
    record,
    seen_in,
    summary,
)
from sdscratch.pictograms.captions import caption
from sdscratch.pictograms.judge import Verdict
from sdscratch.pictograms.scenes import Scene, Thing, combinations, held_out
from sdscratch.pictograms.vocabulary import BEST_KNOWN
from support.judges import CLASSES, VOCABULARY, Oracle, Squares, perfect, trained_judge


def test_prompts_are_the_same_for_a_seed_and_shared_out_between_the_rows() -> None:
    asked = prompts(1000)
    assert asked == prompts(1000)
    assert asked != prompts(1000, seed=1)
    assert Counter(prompt.row for prompt in asked) == {
        "known": 300, "vocabulary": 300, "background": 100, "compositions": 300
    }  # fmt: skip
    kinds = Counter(prompt.kind for prompt in asked if prompt.row == "compositions")
    assert kinds == dict.fromkeys(COMPOSITIONS, 75)
    assert len(prompts(7)) == 7


def test_at_1000_prompts_every_best_known_thing_comes_once() -> None:
    asked = prompts(1000)
    known = [prompt.scene.things[0].concept for prompt in asked if prompt.row == "known"]
    assert sorted(known) == sorted(VOCABULARY[:BEST_KNOWN])
    vocabulary = [prompt.scene.things[0].concept for prompt in asked if prompt.row == "vocabulary"]
    assert len(set(vocabulary)) == 300
    assert set(vocabulary) - set(VOCABULARY[:BEST_KNOWN])


def test_compositions_are_held_out_from_training() -> None:
    for prompt in prompts(400):
        if prompt.row == "compositions":
            assert all(map(held_out, combinations(prompt.scene))), prompt
            assert prompt.scene.style != "silhouette"


@pytest.mark.parametrize("wrong", [False, True])
def test_a_model_that_draws_what_is_asked_has_it_all_and_one_that_does_not_nothing(wrong: bool) -> None:
    asked = [prompt for prompt in prompts(300) if prompt.scene.background != "orange"]
    always = Scene((Thing(VOCABULARY[-1]),), "orange")
    shown = [always if wrong else prompt.scene for prompt in asked]
    numbers = {prompt.text: index for index, prompt in enumerate(asked)}

    def draw(prompt: str, seed: int) -> Tensor:
        assert seed == 5
        return torch.tensor([numbers[prompt]])

    findings = list(agreement(draw, Oracle(shown), asked, seed=5))  # type: ignore[arg-type]
    score = summary(findings)
    assert list(score) == ["known", "vocabulary", "background", "compositions"]
    for row in (*score.values(), *score["compositions"]["kinds"].values()):
        if wrong:
            assert row["top1"] < 0.02
            assert row["both"] == 0
        else:
            assert (row["top1"], row["top5"], row["attribute"], row["both"]) == (1, 1, 1, 1)


def changed(kind: str, scene: Scene) -> Verdict:
    """The verdict on a scene that is right but for what its kind asks."""
    verdict = perfect(scene)
    return {
        "recoloured": replace(verdict, colour="its own"),
        "worn": replace(verdict, worn=frozenset()),
        "count": replace(verdict, layout="one"),
        "pair": replace(verdict, layout="one"),
        "scenery": replace(verdict, ground="white"),
        "style": replace(verdict, style="plain"),
        "ground": replace(verdict, ground="white"),
    }[kind]


@pytest.mark.parametrize("kind", [*COMPOSITIONS, "ground"])
def test_a_right_thing_without_its_attribute_is_not_both(kind: str) -> None:
    (scene,) = [prompt.scene for prompt in prompts(200) if prompt.kind == kind][:1]
    assert seen_in(scene, perfect(scene), CLASSES) == (True, True, True)
    assert seen_in(scene, changed(kind, scene), CLASSES) == (True, True, False)


@pytest.mark.parametrize(("relation", "matters"), [("left of", True), ("below", True), ("next to", False)])
def test_the_order_of_two_things_counts_where_it_is_said(relation: str, matters: bool) -> None:
    scene = Scene((Thing("dog"), Thing("cat")), relation=relation)
    verdict = perfect(scene)
    swapped = replace(verdict, first=verdict.second, second=verdict.first)
    assert seen_in(scene, verdict, CLASSES) == (True, True, True)
    assert seen_in(scene, swapped, CLASSES) == (True, True, not matters)
    other = replace(verdict, second=verdict.first)  # two dogs
    assert seen_in(scene, other, CLASSES)[0] is False


def test_the_second_to_fifth_guess_counts_as_such() -> None:
    scene = Scene((Thing(VOCABULARY[7]),))
    verdict = replace(perfect(scene), first=(1, 2, 3, 4, 7))
    assert seen_in(scene, verdict, CLASSES) == (False, True, True)
    assert seen_in(scene, replace(verdict, first=(1, 2, 3, 4, 5)), CLASSES) == (False, False, True)


def test_a_trained_judge_tells_a_model_that_draws_from_one_that_does_not() -> None:
    squares, judge = Squares(), trained_judge()
    scenes = [squares.scene(3, index) for index in range(24)]
    asked = [
        Prompt("background", "ground", f"{index} {caption(scene, random.Random(index))}", scene)
        for index, scene in enumerate(scenes)
    ]
    others = [replace(s, things=(replace(s.things[0], concept=OTHER[s.things[0].concept]),)) for s in scenes]
    for shown, least, most in ((scenes, 0.9, 1.0), (others, 0.0, 0.1)):

        def draw(prompt: str, seed: int, shown: list[Scene] = shown) -> Tensor:
            return squares.draw([shown[int(prompt.split()[0])]])

        found = summary(list(agreement(draw, judge, asked)))["background"]
        assert least <= found["top1"] <= most


OTHER = {"dog": "cat", "cat": "apple", "apple": "car", "car": "dog"}


def test_a_finding_is_told_in_words() -> None:
    scene = Scene((Thing("dog"), Thing("cat")), "red", relation="left of")
    prompt = Prompt("compositions", "pair", "a dog left of a cat", scene)
    (finding,) = agreement(lambda text, seed: torch.zeros(1), Oracle([scene]), [prompt])  # type: ignore[arg-type]
    told = record(finding, CLASSES)
    assert told["prompt"] == "a dog left of a cat"
    assert (told["row"], told["kind"], told["top1"], told["attribute"]) == (
        "compositions",
        "pair",
        True,
        True,
    )
    assert (told["seen"]["first"][0], told["seen"]["second"][0]) == ("dog", "cat")
    assert (told["seen"]["layout"], told["seen"]["ground"]) == ("beside", "red")
