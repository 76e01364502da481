"""The judge: a small classifier that says what a picture shows, so that it can be compared with a prompt.

It learns from fresh renders alone (`judging`), never from generated pictures. It answers a few questions:
which thing is seen, and which second one; how many, or how two of them stand; which ground; which colour;
what is worn; in which style. Shapes: n pictures [n, 3, SIDE, SIDE] in −1 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.checkpoints.places import EMBEDDED, cache_folder, find_local
from sdscratch.errors import CheckpointError
from sdscratch.files import atomic_write
from sdscratch.pictograms.colours import HUES, RECOLOURED
from sdscratch.pictograms.scenes import RELATIONS, SCENERIES, STYLES, Scene
from sdscratch.pictograms.vocabulary import BACKGROUNDS
from sdscratch.pictograms.wardrobe import ACCESSORIES

__all__ = [
    "MANY",
    "QUESTIONS",
    "SIDE",
    "SLOTS",
    "UNASKED",
    "Classes",
    "Judge",
    "Verdict",
    "answers",
    "find_judge",
    "load_judge",
    "save_judge",
    "shrunk",
    "usual_place",
]

SIDE = 64  # of the pictures that it looks at, in pixels
WIDTHS = (64, 128, 256)  # channels at 16, 8 and 4 positions a side
BLOCKS = (2, 3, 2)
FINAL = 4  # positions a side, at the end
NARROW = 32  # channels of what all small questions are answered from
TOP = 5  # how many of its best guesses a verdict keeps

UNASKED = -100  # the answer to a question that makes no sense of a scene: what cross entropy leaves out

OWN = "its own"
PLAIN = "plain"
# Of two things, the first is the one on the left, or above.
SLOTS = ("first", "second")
# One answer each.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "layout": ("one", "two", "three", "four", "beside", "stacked"),
    "ground": (*BACKGROUNDS, *SCENERIES),
    "colour": (*HUES, OWN),
    "style": (PLAIN, *STYLES),
}
MANY = {"worn": tuple(ACCESSORIES)}  # any number of answers

NAME = "judge.safetensors"
METADATA = "sdscratch.judge"
MISSING = "the judge that names what a picture shows is not at {}; make it with `make judge`"


@dataclass(frozen=True)
class Classes:
    """What a thing can be: concepts that no one could tell apart are one class."""

    groups: tuple[tuple[str, ...], ...]  # names of concepts

    @cached_property
    def of(self) -> Mapping[str, int]:
        """The class of each concept."""
        return {name: index for index, group in enumerate(self.groups) for name in group}

    def __len__(self) -> int:
        return len(self.groups)


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in one picture."""

    first: tuple[int, ...]  # classes, its best guesses first
    second: tuple[int, ...]  # likewise; says nothing where only one thing is seen
    layout: str
    ground: str
    colour: str
    style: str
    worn: frozenset[str]


def answers(scene: Scene, classes: Classes) -> dict[str, int | list[int]]:
    """What a scene answers to every question: indices, UNASKED, and a list of 0 and 1 for what is worn."""
    things = scene.things
    coloured = len(things) == 1 and not scene.style
    colour = (things[0].colour or RECOLOURED.get(things[0].concept, "")) if coloured else ""
    if coloured and things[0].concept in RECOLOURED:
        colour = colour or OWN
    first, second = things[0], things[-1]
    if scene.relation:
        axis = 0 if RELATIONS[scene.relation].arrangement == "beside" else 1
        first, second = sorted(things, key=lambda thing: thing.at[axis])
    worn = {name for thing in things for name in thing.worn}
    return {
        "first": classes.of[first.concept],
        "second": classes.of[second.concept] if scene.relation else UNASKED,
        "layout": QUESTIONS["layout"].index(layout(scene)),
        "ground": QUESTIONS["ground"].index(scene.scenery or scene.background),
        "colour": QUESTIONS["colour"].index(colour) if colour else UNASKED,
        "style": QUESTIONS["style"].index(scene.style or PLAIN),
        "worn": [int(name in worn) for name in ACCESSORIES],
    }


def layout(scene: Scene) -> str:
    """How many things there are, or how two of them stand."""
    if scene.relation:
        return RELATIONS[scene.relation].arrangement
    return QUESTIONS["layout"][scene.count - 1]


class Step(nn.Module):
    """A convolution, a norm and a ReLU, with a bypass where the shape stays (He et al. 2016, section 3.2)."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.bypassed = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return F.relu(x + y if self.bypassed else y)


class Look(nn.Module):
    """A mean over positions, weighted by what is there and by where it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(width, 1, 1)
        self.place = nn.Parameter(torch.zeros(FINAL * FINAL))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.score(x).flatten(2).float() + self.place, dim=2)  # [n, 1, positions]
        return (x.flatten(2) * weights.to(x.dtype)).sum(2)


class Judge(nn.Module):
    """Convolutions to 4×4 positions; two looks at things, and one at everything else."""

    def __init__(self, classes: Classes) -> None:
        super().__init__()
        self.classes = classes
        steps = [Step(3, WIDTHS[0], side=6, stride=4)]
        for level, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            if level:
                steps.append(Step(WIDTHS[level - 1], width, stride=2))
            steps += [Step(width, width) for _ in range(blocks)]
        self.trunk = nn.Sequential(*steps)
        self.looks = nn.ModuleDict({slot: Look(WIDTHS[-1]) for slot in SLOTS})
        self.things = nn.Linear(WIDTHS[-1], len(classes))
        self.narrow = nn.Conv2d(WIDTHS[-1], NARROW, 1)
        small = {name: len(answers) for name, answers in (QUESTIONS | MANY).items()}
        self.small = nn.ModuleDict(
            {name: nn.Linear(NARROW * FINAL**2, count) for name, count in small.items()}
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits of every question, [n, answers] each."""
        x = self.trunk(pictures)
        flat = F.relu(self.narrow(x)).flatten(1)
        things = {slot: self.things(look(x)) for slot, look in self.looks.items()}
        return things | {name: layer(flat) for name, layer in self.small.items()}

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """What it sees of n pictures of any size, before any question: [n, width], means over positions."""
        return self.trunk(shrunk(pictures)).float().mean(dim=(2, 3))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def verdicts(self, pictures: Tensor) -> list[Verdict]:
        """What it sees in each of n pictures of any size, [n, 3, H, W]."""
        logits = {name: values.float() for name, values in self(shrunk(pictures)).items()}
        first, second = (logits[slot].topk(min(TOP, len(self.classes))).indices.tolist() for slot in SLOTS)
        chosen = {name: logits[name].argmax(1).tolist() for name in QUESTIONS}
        worn = (logits["worn"] > 0).tolist()
        return [
            Verdict(
                tuple(first[i]),
                tuple(second[i]),
                **{name: QUESTIONS[name][chosen[name][i]] for name in QUESTIONS},
                worn=frozenset(name for name, on in zip(ACCESSORIES, worn[i], strict=True) if on),
            )
            for i in range(len(pictures))
        ]


def shrunk(pictures: Tensor) -> Tensor:
    """Pictures in the judge's size."""
    if pictures.shape[-2:] == (SIDE, SIDE):
        return pictures
    return F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def usual_place() -> Path:
    """Where a judge is written if nobody says otherwise: in the cache; without one, here."""
    return (cache_folder() or Path()) / NAME


def find_judge() -> Path:
    """The user's own judge; or else the one beside the built-in model, which a checkout has and a wheel not.

    Raises:
        CheckpointError: there is neither.
    """
    shipped = find_local(EMBEDDED)
    places = [usual_place(), *([shipped.with_name(NAME)] if shipped else [])]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise CheckpointError(MISSING.format(places[0]))
    return found


def save_judge(path: Path, judge: Judge) -> None:
    """Write a judge as one float16 file, with what it needs to know of the vocabulary.

    Raises:
        SdscratchError: the operating system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in judge.state_dict().items()
    }
    record = {"classes": judge.classes.groups, "answers": QUESTIONS | MANY}
    with atomic_write(path, overwrite=True) as file:
        file.write(safetensors.torch.save(tensors, {METADATA: json.dumps(record)}))


def load_judge(path: Path, names: Iterable[str]) -> Judge:
    """The inverse of `save_judge`, ready to judge.

    Args:
        names: of the concepts that it must know.

    Raises:
        CheckpointError: it is not there, is no judge, or knows another vocabulary.
    """
    if not path.is_file():
        raise CheckpointError(MISSING.format(path))
    try:
        with safetensors.safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})[METADATA])
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no judge; make one with `make judge`") from error
    judge = Judge(Classes(_tuples(record["classes"])))
    known = {name: tuple(values) for name, values in record["answers"].items()}
    if known != QUESTIONS | MANY or set(judge.classes.of) != set(names):
        raise CheckpointError(
            f"the judge at {path} knows another vocabulary; make it again with `make judge`"
        )
    judge.load_state_dict(tensors)
    return judge.eval().requires_grad_(False)


def _tuples(groups: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group) for group in groups)
