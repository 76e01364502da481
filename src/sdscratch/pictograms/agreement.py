"""The prompt-agreement score: how often a picture shows what its prompt asked for, as the judge sees it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from sdscratch.pictograms.captions import caption
from sdscratch.pictograms.judge import Classes, Judge, Verdict, layout
from sdscratch.pictograms.mixtures import CPU, KINDS, Chooser
from sdscratch.pictograms.scenes import RELATIONS, Scene, Thing
from sdscratch.pictograms.vocabulary import BEST_KNOWN, concepts

__all__ = [
    "COMPOSITIONS",
    "ROWS",
    "Finding",
    "Prompt",
    "agreement",
    "held_out_scene",
    "prompts",
    "record",
    "seen_in",
    "summary",
]

Draw = Callable[[str, int], Tensor]  # prompt and seed → [1, 3, H, W] in −1 to 1

# Which share of the prompts belongs to each row of the score.
ROWS = {"known": 0.3, "vocabulary": 0.3, "background": 0.1, "compositions": 0.3}
# What grounds and compositions are made of, whatever a training showed how often: the score must stay one.
ASKED = replace(CPU, fame=((100, 3.0), (BEST_KNOWN, 1.0)), white=0.4, anywhere=0.0)
COMPOSITIONS = ("recoloured", "worn", "count", "pair")  # in equal parts; the judge is less sure of others


@dataclass(frozen=True)
class Prompt:
    """What is asked for, in words and as a scene."""

    row: str  # of ROWS
    kind: str  # of `mixtures.KINDS`
    text: str
    scene: Scene


@dataclass(frozen=True)
class Finding:
    """A prompt, and what was seen in the picture of it."""

    prompt: Prompt
    verdict: Verdict
    top1: bool  # the thing is the judge's first guess; of two things, both are
    top5: bool  # it is among the first five
    attribute: bool  # ground, colour, number, … are as asked

    @property
    def both(self) -> bool:
        """Whether the picture shows what was asked for."""
        return self.top1 and self.attribute


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    """`count` prompts in the words of training captions; the rows one after another.

    The best known things come each once before any comes twice, and so do all things in their row. Grounds
    and compositions are of the best known things; what a composition combines was held out from training.
    """
    rng = random.Random(f"agreement {seed}")
    chooser = Chooser(ASKED)
    names = [concept.name for concept in concepts()]

    def composition(index: int) -> Scene:
        return held_out_scene(chooser, COMPOSITIONS[index % len(COMPOSITIONS)], rng)

    rows: dict[str, Callable[[int], Scene]] = {
        "known": plain_scenes(names[:BEST_KNOWN], rng),
        "vocabulary": plain_scenes(names, rng),
        "background": lambda index: KINDS["ground"](chooser, rng),
        "compositions": composition,
    }
    sizes = [round(count * share) for share in ROWS.values()]
    sizes[-1] += count - sum(sizes)
    result = []
    for (row, scene_of), size in zip(rows.items(), sizes, strict=True):
        for index in range(size):
            scene = scene_of(index)
            result.append(Prompt(row, scene.kind, caption(scene, rng), scene))
    return result


def plain_scenes(names: Sequence[str], rng: random.Random) -> Callable[[int], Scene]:
    """Things by themselves, all of them in a random order, then all again."""
    order = rng.sample(names, len(names))
    return lambda index: Scene((Thing(order[index % len(order)]),))


def held_out_scene(chooser: Chooser, kind: str, rng: random.Random) -> Scene:
    """A scene of this kind that no training has; no silhouette, which can be of many things."""
    if kind == "plain":  # it combines nothing
        return KINDS[kind](chooser, rng)
    while True:
        scene = chooser.held_out(kind, rng)
        if scene.style != "silhouette":
            return scene


def agreement(draw: Draw, judge: Judge, asked: Iterable[Prompt], *, seed: int = 0) -> Iterator[Finding]:
    """Draw every prompt with this seed, and say what is seen."""
    for prompt in asked:
        (verdict,) = judge.verdicts(draw(prompt.text, seed))
        yield Finding(prompt, verdict, *seen_in(prompt.scene, verdict, judge.classes))


def seen_in(scene: Scene, verdict: Verdict, classes: Classes) -> tuple[bool, bool, bool]:
    """Whether a scene's things are the best guesses, among the best five, and its attribute as asked."""
    wanted = [classes.of[thing.concept] for thing in scene.things]
    if not scene.relation:
        return wanted[0] == verdict.first[0], wanted[0] in verdict.first, attribute_seen(scene, verdict)
    orders = (wanted, wanted[::-1])  # left to right, or downwards
    guesses = (verdict.first, verdict.second)
    best = [all(c == g[0] for c, g in zip(order, guesses, strict=True)) for order in orders]
    near = [all(c in g for c, g in zip(order, guesses, strict=True)) for order in orders]
    relation = RELATIONS[scene.relation]
    leads = sum(relation.first) < 0  # the first thing is on the left, or above
    right, wrong = (0, 1) if leads else (1, 0)
    in_order = relation.either_way or (near[right] and not best[wrong])
    return any(best), any(near), in_order and attribute_seen(scene, verdict)


# What each kind of scene asks beside its things.
ATTRIBUTES: dict[str, Callable[[Scene, Verdict], bool]] = {
    "plain": lambda scene, verdict: verdict.ground == scene.background,
    "ground": lambda scene, verdict: verdict.ground == scene.background,
    "recoloured": lambda scene, verdict: verdict.colour == scene.things[0].colour,
    "worn": lambda scene, verdict: verdict.worn == frozenset(scene.things[0].worn),
    "count": lambda scene, verdict: verdict.layout == layout(scene),
    "pair": lambda scene, verdict: verdict.layout == layout(scene),
    "scenery": lambda scene, verdict: verdict.ground == scene.scenery,
    "style": lambda scene, verdict: verdict.style == scene.style,
}


def attribute_seen(scene: Scene, verdict: Verdict) -> bool:
    """Whether what is said of the things is seen."""
    return ATTRIBUTES[scene.kind](scene, verdict)


def record(finding: Finding, classes: Classes) -> dict[str, Any]:
    """A finding as plain data."""
    verdict = finding.verdict
    return {
        "prompt": finding.prompt.text,
        "row": finding.prompt.row,
        "kind": finding.prompt.kind,
        "seen": {
            "first": [classes.groups[index][0] for index in verdict.first],
            "second": [classes.groups[index][0] for index in verdict.second],
            "layout": verdict.layout,
            "ground": verdict.ground,
            "colour": verdict.colour,
            "style": verdict.style,
            "worn": sorted(verdict.worn),
        },
        "top1": finding.top1,
        "top5": finding.top5,
        "attribute": finding.attribute,
    }


@dataclass(frozen=True)
class Share:
    """How many of some findings are right, 0 to 1 each."""

    prompts: int
    top1: float
    top5: float
    attribute: float
    both: float


def share(findings: Sequence[Finding]) -> Share:
    """Of findings, at least one."""
    names = ("top1", "top5", "attribute", "both")
    sums = (sum(getattr(finding, name) for finding in findings) for name in names)
    return Share(len(findings), *(total / len(findings) for total in sums))


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """The score as plain data: every row that has findings, compositions also by kind."""
    rows: dict[str, Any] = {}
    for row in ROWS:
        found = [finding for finding in findings if finding.prompt.row == row]
        if found:
            rows[row] = asdict(share(found))
    if "compositions" in rows:
        composed = [finding for finding in findings if finding.prompt.row == "compositions"]
        kinds = {kind: [f for f in composed if f.prompt.kind == kind] for kind in COMPOSITIONS}
        rows["compositions"]["kinds"] = {kind: asdict(share(found)) for kind, found in kinds.items() if found}
    return rows
