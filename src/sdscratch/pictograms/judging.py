"""Training the judge on fresh renders, and measuring it on others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.pictograms.agreement import held_out_scene, seen_in
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.judge import MANY, SIDE, UNASKED, Classes, Judge, answers, load_judge
from sdscratch.pictograms.mixtures import KINDS, Mixture
from sdscratch.pictograms.pictograms import SpriteTable
from sdscratch.pictograms.scenes import Scene
from sdscratch.pictograms.vocabulary import concepts
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.loop import Show, train
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.engine.rng import generator, seed_of

__all__ = ["BATCH", "MIXTURE", "RATE", "STEPS", "JudgeLoss", "alike", "measure", "softened", "train_judge"]

# All concepts equally often: each must be told from all others. Sceneries and styles, which the score leaves
# out, come seldom.
MIXTURE = Mixture(
    fame=((len(concepts()), 1.0),),
    shares={
        "plain": 0.14,
        "ground": 0.2,
        "recoloured": 0.12,
        "worn": 0.14,
        "count": 0.17,
        "pair": 0.16,
        "scenery": 0.04,
        "style": 0.03,
    },
    scale=(0.76, 0.97),
    shift=0.04,
)

STEPS, BATCH, RATE = 10500, 64, 2e-3

SETTLING = 32  # batches, after training

ALIKE = 0.035  # two pictograms are one below this root of their mean squared difference, at COARSE
COARSE = 17  # pixels a side: a pictogram in 64×64, halved and halved again

WEIGHTS = {
    "first": 1.0,
    "second": 0.5,
    "layout": 0.5,
    "ground": 0.3,
    "colour": 1.0,
    "style": 1.0,
    "worn": 4.0,  # small things, and most answers are no
}

# How far renders are changed, so that pictures of a model's making are no surprise.
TURN = 0.06  # of a picture's side, how far it is moved, at most
ZOOM = 0.08
TINT = 0.05  # on each colour, of a range of 2
GRAIN = 0.06


def alike(table: SpriteTable, names: Sequence[str]) -> Classes:
    """Concepts by looks: those whose pictograms no one could tell apart at the judge's size are one class."""
    rows = [table.rows[name, ""] for name in names]
    pixels = torch.from_numpy(table.pixels[rows]).permute(0, 2, 1, 3).float() / 255
    coarse = F.interpolate(pixels, size=(COARSE, COARSE), mode="area").flatten(1).double()
    squares = coarse.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * coarse @ coarse.T).clamp_min(0) / coarse.shape[1]
    near = (distances.sqrt() < ALIKE).numpy()
    group = np.arange(len(names))
    for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True):
        group[group == group[b]] = group[a]
    return Classes(tuple(tuple(np.array(names)[group == g].tolist()) for g in dict.fromkeys(group.tolist())))


def train_judge(
    table: SpriteTable,
    budget: Budget,
    folder: Path,
    distributed: DistributedContext,
    *,
    rate: float = RATE,
    workers: int = 1,
    begin: Path | None = None,
    show: Show = lambda progress: None,
) -> Judge:
    """Train a judge on all concepts, or go on in `folder`; return it ready to judge.

    Args:
        begin: a judge with whose weights a new run begins.

    Raises:
        CheckpointError: `begin` is missing, no judge, or knows another vocabulary.
    """
    names = [concept.name for concept in concepts()]
    torch.manual_seed(1)
    judge = Judge(alike(table, names)) if begin is None else load_judge(begin, names)
    judge.train().requires_grad_(True)
    judge.to(distributed.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    # no average of weights: the norms' statistics are those of the weights themselves
    recipe = Recipe(budget, rate, BATCH, workers=workers, warm_up=200, weight_decay=0.02, ema=None)
    loss = JudgeLoss(judge_composer(table), judge.classes, distributed)
    steps = train(judge, loss, recipe, folder, distributed, show=show)
    settle_norms(judge, loss, steps)
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def settle_norms(
    judge: Judge, loss: JudgeLoss, step: int, *, batches: int = SETTLING, size: int = BATCH
) -> None:
    """Give batch norms the statistics of fresh renders under the weights as they are (Wu & Johnson 2021).

    The moving ones are those of weights that were left behind, and checkpoints hold weights alone. The
    renders are those of the steps that would come next.
    """
    norms = [module for module in judge.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # every batch counts the same
    judge.train()
    for index in range(batches):
        loss(judge, step + index, range(size))


def judge_composer(table: SpriteTable) -> Composer:
    """What draws the pictures that a judge learns from, and those that it is measured on."""
    return Composer(table, SIDE, MIXTURE)


class JudgeLoss:
    """The loss of a step: fresh scenes, softened, and how wrongly their questions are answered."""

    def __init__(self, composer: Composer, classes: Classes, distributed: DistributedContext) -> None:
        self.composer, self.classes, self.distributed = composer, classes, distributed

    def __call__(self, module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        device = self.distributed.device
        scenes = [self.composer.scene(step, index) for index in indices]
        rng = generator("cpu", "soften", self.composer.seed, step, indices.start)
        pictures = softened(self.composer.draw(scenes, device), rng)
        wanted = asked(scenes, self.classes, device)
        with self.distributed.autocast():
            logits = module(pictures.contiguous(memory_format=torch.channels_last))
        total = torch.zeros((), device=device)
        for name, weight in WEIGHTS.items():
            total = total + weight * question_loss(name, logits[name].float(), wanted[name])
        right = (logits["first"].argmax(1) == wanted["first"]).float().mean()
        return total, {"first": right}


def question_loss(name: str, logits: Tensor, wanted: Tensor) -> Tensor:
    """The mean over all pictures; those that a question is not asked of count as answered."""
    if name in MANY:
        return F.binary_cross_entropy_with_logits(logits, wanted.float())
    return F.cross_entropy(logits, wanted, ignore_index=UNASKED, reduction="sum") / len(wanted)


def asked(scenes: Sequence[Scene], classes: Classes, device: torch.device) -> dict[str, Tensor]:
    """The scenes' answers, [n] each, and [n, answers] for those of which there can be many."""
    rows = [answers(scene, classes) for scene in scenes]
    return {name: torch.tensor([row[name] for row in rows], device=device) for name in rows[0]}


def softened(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Pictures moved, tinted, blurred and grained a little, each in its own way."""
    n, device = len(pictures), pictures.device

    def draw(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=rng) * 2 - 1).to(device)

    turn = torch.zeros(n, 2, 3, device=device)
    turn[:, 0, 0] = turn[:, 1, 1] = 1 + ZOOM * draw(n)
    turn[:, :, 2] = 2 * TURN * draw(n, 2)
    grid = F.affine_grid(turn, [n, 3, SIDE, SIDE], align_corners=False)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    coarse = F.interpolate(F.avg_pool2d(moved, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    mixed = torch.softmax(4 * draw(3, n, 1, 1, 1), dim=0)  # mostly one of the three
    soft = mixed[0] * moved + mixed[1] * blurred + mixed[2] * coarse
    tinted = soft * (1 + TINT * draw(n, 3, 1, 1)) + TINT * draw(n, 3, 1, 1)
    grain = GRAIN * draw(n, 1, 1, 1).abs() * draw(n, 3, SIDE, SIDE)
    return (tinted + grain).clamp(-1, 1)


def measure(judge: Judge, table: SpriteTable, count: int = 512) -> dict[str, tuple[float, float]]:
    """What the score would be of a model that draws perfectly: for each kind, things and attributes right.

    Over `count` scenes of every kind and of a seed that no training has; what they combine was held out, too.
    """
    composer = judge_composer(table)
    rng = random.Random(seed_of("held out", "judge"))
    device = next(judge.parameters()).device
    shares = {}
    for kind in KINDS:
        scenes = [held_out_scene(composer.chooser, kind, rng) for _ in range(count)]
        seen = [
            seen_in(scene, verdict, judge.classes)
            for start in range(0, count, BATCH)
            for part in [scenes[start : start + BATCH]]
            for scene, verdict in zip(part, judge.verdicts(composer.draw(part, device)), strict=True)
        ]
        shares[kind] = (sum(top1 for top1, _, _ in seen) / count, sum(right for _, _, right in seen) / count)
    return shares
