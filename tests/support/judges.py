"""A small world for judges: squares of four colours that stand for four concepts, drawn without a font."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from sdscratch.pictograms.judge import SIDE, Classes, Judge, Verdict, layout
from sdscratch.pictograms.judging import JudgeLoss, settle_norms
from sdscratch.pictograms.scenes import RELATIONS, Scene, Thing
from sdscratch.pictograms.vocabulary import BACKGROUNDS, concepts
from sdscratch.training.engine.distributed import DistributedContext

__all__ = ["CLASSES", "NAMES", "VOCABULARY", "Oracle", "Squares", "perfect", "trained_judge"]

SHADES = {"dog": (0.9, 0.1, 0.9), "cat": (0.0, 0.9, 0.9), "apple": (0.3, 0.1, 0.0), "car": (0.0, 0.0, 0.5)}
NAMES = tuple(SHADES)
GROUNDS = ("white", "black", "yellow")


class Squares:
    """Draws scenes, and chooses them as a composer does."""

    seed = 1

    def __init__(self, pairs: bool = False) -> None:
        self.pairs = pairs

    def scene(self, step: int, index: int) -> Scene:
        """A thing on a ground; with pairs, every second one a thing beside another."""
        rng = random.Random(f"{step} {index}")
        ground = rng.choice(GROUNDS)
        if self.pairs and index % 2:
            first, second = rng.sample(NAMES, 2)
            things = (Thing(first, at=(-0.25, 0.0), scale=0.4), Thing(second, at=(0.25, 0.0), scale=0.4))
            return Scene(things, ground, relation="left of")
        return Scene((Thing(rng.choice(NAMES), scale=rng.uniform(0.6, 0.8)),), ground)

    def draw(self, scenes: Sequence[Scene], device: torch.device | str = "cpu") -> Tensor:
        """[n, 3, SIDE, SIDE] in −1 to 1."""
        pictures = []
        for scene in scenes:
            picture = torch.tensor(BACKGROUNDS[scene.background])[:, None, None].repeat(1, SIDE, SIDE)
            for thing in scene.things:
                left, top = (round((0.5 + at - thing.scale / 2) * SIDE) for at in thing.at)
                side = round(thing.scale * SIDE)
                shade = torch.tensor(SHADES[thing.concept])[:, None, None]
                picture[:, top : top + side, left : left + side] = shade
            pictures.append(picture * 2 - 1)
        return torch.stack(pictures).to(device)


@cache
def trained_judge() -> Judge:
    """A judge that has learnt this world; a few seconds."""
    torch.manual_seed(0)
    judge = Judge(Classes(tuple((name,) for name in NAMES)))
    loss = JudgeLoss(Squares(), judge.classes, DistributedContext(torch.device("cpu")))  # type: ignore[arg-type]
    descent = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    for step in range(20):
        value, _ = loss(judge, step, range(16))
        descent.zero_grad()
        value.backward()
        descent.step()
    settle_norms(judge, loss, 20, batches=4, size=16)
    return judge.eval().requires_grad_(False)


VOCABULARY = [concept.name for concept in concepts()]
CLASSES = Classes(tuple((name,) for name in VOCABULARY))


def perfect(scene: Scene) -> Verdict:
    """What a judge says that sees just what a scene shows."""
    things = list(scene.things)
    if scene.relation and sum(RELATIONS[scene.relation].first) > 0:
        things.reverse()
    first, second = (CLASSES.of[thing.concept] for thing in (things[0], things[-1]))
    others = tuple(index for index in range(4) if index != first)
    return Verdict(
        first=(first, *others),
        second=(second, *others),
        layout=layout(scene),
        ground=scene.scenery or scene.background,
        colour=scene.things[0].colour or "its own",
        style=scene.style or "plain",
        worn=frozenset(scene.things[0].worn),
    )


class Oracle:
    """Judges pictures that are only numbers, by the scenes that these number."""

    classes = CLASSES

    def __init__(self, shown: list[Scene]) -> None:
        self.shown = shown

    def parameters(self) -> Iterator[Tensor]:
        """By which one finds the device of a judge."""
        yield torch.empty(0)

    def verdicts(self, pictures: Tensor) -> list[Verdict]:
        """What the scenes show."""
        return [perfect(self.shown[int(number)]) for number in pictures]
