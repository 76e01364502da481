"""Which scenes come how often: a `Mixture` says it, a `Chooser` chooses by it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from sdscratch.pictograms.colours import RECOLOURED, colours_of
from sdscratch.pictograms.scenes import (
    RELATIONS,
    SCENERIES,
    STYLES,
    VIEWS,
    Scene,
    Thing,
    combinations,
    held_out,
)
from sdscratch.pictograms.vocabulary import BACKGROUNDS, BEST_KNOWN, TELLING_SHAPES, concepts
from sdscratch.pictograms.wardrobe import HEADS, sets

__all__ = ["CPU", "FULL", "KINDS", "Chooser", "Mixture"]

# Where the middles of several equal things lie, in units of half the room that one of them leaves.
LAYOUTS: dict[int, tuple[tuple[tuple[float, float], ...], ...]] = {
    2: (((-1, 0), (1, 0)),),
    3: (((-1, 0.94), (1, 0.94), (0, -0.94)), ((-1, -0.94), (1, -0.94), (0, 0.94))),
    4: (((-1, -1), (1, -1), (-1, 1), (1, 1)),),
}


Fame = tuple[
    tuple[int, float], ...
]  # up to which place in the list of concepts, how often each; others never


@dataclass(frozen=True)
class Mixture:
    """Which scenes come how often."""

    fame: Fame  # of single things
    shares: Mapping[str, float]  # of each kind of scene
    white: float = 0.4  # how often the ground of coloured, worn and several things is white
    scale: tuple[float, float] = (0.82, 0.94)  # of a single thing
    several: tuple[float, float] = (0.44, 0.48)  # of one of several
    standing: tuple[float, float] = (0.5, 0.68)  # of one in a scenery
    shift: float = 0.02  # from its place, at most; more makes shapes slow to learn
    dressed_twice: float = 0.3  # how often who wears something wears two things
    anywhere: float = 0.0  # how often a single thing is smaller and anywhere: what keeps its place in img2img
    small: tuple[float, float] = (0.4, 0.8)  # its scale then
    fame_together: Fame | None = None  # of what comes in counts and pairs; none means as single things


# For two cores: the best known things more often, mostly large, and several only of the best known. That is
# what made shapes learnable there; beside each other they are small, and have to be learnt once more.
CPU = Mixture(
    fame=((100, 3.0), (BEST_KNOWN, 2.2), (len(concepts()), 1.0)),
    fame_together=((100, 3.0), (BEST_KNOWN, 1.0)),
    shares={
        "plain": 0.34,
        "ground": 0.22,
        "recoloured": 0.05,
        "worn": 0.06,
        "count": 0.14,
        "pair": 0.13,
        "scenery": 0.03,
        "style": 0.03,
    },
    anywhere=0.12,
)
# For a GPU: everything.
FULL = Mixture(
    fame=((100, 3.0), (BEST_KNOWN, 2.0), (len(concepts()), 1.0)),
    shares={
        "plain": 0.2,
        "ground": 0.28,
        "recoloured": 0.1,
        "worn": 0.1,
        "count": 0.09,
        "pair": 0.11,
        "scenery": 0.06,
        "style": 0.06,
    },
    anywhere=0.2,
)


class Pool:
    """Things to choose from, some more often than others."""

    def __init__(self, names: Sequence[str], weights: Sequence[float]) -> None:
        self.names = tuple(names)
        self.weights = list(accumulate(weights))

    def __call__(self, chance: random.Random) -> str:
        return chance.choices(self.names, cum_weights=self.weights)[0]


def _weights(fame: Fame) -> dict[str, float]:
    """How often each thing comes, by its place in the list."""
    known = concepts()[: fame[-1][0]]
    return {each.name: next(w for upto, w in fame if rank < upto) for rank, each in enumerate(known)}


def _pool(names: Sequence[str], weights: Mapping[str, float]) -> Pool:
    return Pool(names, [weights[name] for name in names])


class Chooser:
    """Chooses scenes by a mixture, with any source of chance.

    Args:
        focus: by how much things come more often, or less, than the mixture says where they are alone; those
            that are not named come as it says.
    """

    def __init__(self, mixture: Mixture, focus: Mapping[str, float] | None = None) -> None:
        self.mixture = mixture
        fame, focus = _weights(mixture.fame), focus or {}
        self.things = _pool(
            list(fame), {name: weight * focus.get(name, 1.0) for name, weight in fame.items()}
        )
        together = _weights(mixture.fame_together or mixture.fame)
        self.together = _pool(list(together), together)
        countable = {each.name for each in concepts() if each.countable}
        self.countable = _pool([name for name in together if name in countable], together)
        self.recoloured = _pool([name for name in RECOLOURED if name in fame], fame)
        self.heads = _pool([name for name in HEADS if name in fame], fame)
        self.telling = _pool([name for name in fame if name in TELLING_SHAPES], fame)
        self.kinds = Pool(list(mixture.shares), list(mixture.shares.values()))

    def scene(self, chance: random.Random) -> Scene:
        """A scene for training: nothing in it is held out."""
        kind = self.kinds(chance)
        while True:
            scene = KINDS[kind](self, chance)
            if not any(map(held_out, combinations(scene))):
                return scene

    def held_out(self, kind: str, chance: random.Random) -> Scene:
        """A scene of this kind, all of whose combinations are held out.

        Raises:
            ValueError: the kind combines nothing.
        """
        if kind == "plain":
            raise ValueError("a plain scene combines nothing that could be held out")
        while True:
            scene = KINDS[kind](self, chance)
            if all(map(held_out, combinations(scene))):
                return scene

    def _place(
        self, span: tuple[float, float], chance: random.Random, shift: float
    ) -> tuple[float, float, float]:
        """A scale, and a shift to the right and down that keeps the whole thing in the picture."""
        scale = chance.uniform(*span)
        room = min(shift, (1.0 - scale) / 2)
        return scale, chance.uniform(-room, room), chance.uniform(-room, room)

    def _single(self, concept: str, chance: random.Random, **about: object) -> Thing:
        if chance.random() < self.mixture.anywhere:
            scale, right, down = self._place(self.mixture.small, chance, shift=0.5)
        else:
            scale, right, down = self._place(self.mixture.scale, chance, self.mixture.shift)
        return Thing(concept, at=(right, down), scale=scale, **about)  # type: ignore[arg-type]

    def _ground(self, chance: random.Random, but: str = "") -> str:
        if chance.random() < self.mixture.white:
            return "white"
        return chance.choice([colour for colour in BACKGROUNDS if colour not in ("white", but)])

    def plain(self, chance: random.Random) -> Scene:
        return Scene((self._single(self.things(chance), chance),))

    def ground(self, chance: random.Random) -> Scene:
        background = chance.choice([colour for colour in BACKGROUNDS if colour != "white"])
        return Scene((self._single(self.things(chance), chance),), background)

    def recolour(self, chance: random.Random) -> Scene:
        concept = self.recoloured(chance)
        colour = chance.choice(colours_of(concept))
        return Scene((self._single(concept, chance, colour=colour),), self._ground(chance, but=colour))

    def worn(self, chance: random.Random) -> Scene:
        number = 2 if chance.random() < self.mixture.dressed_twice else 1
        worn = chance.choice([each for each in sets() if len(each) == number])
        return Scene((self._single(self.heads(chance), chance, worn=worn),), self._ground(chance))

    def several(self, chance: random.Random) -> Scene:
        concept, number = self.countable(chance), chance.randint(2, 4)
        scale = chance.uniform(*self.mixture.several)
        room = (1.0 - scale) / 2
        things = tuple(
            Thing(concept, at=self._near(x * room, y * room, scale, chance), scale=scale)
            for x, y in chance.choice(LAYOUTS[number])
        )
        return Scene(things, self._ground(chance))

    def pair(self, chance: random.Random) -> Scene:
        relation = chance.choice(list(RELATIONS))
        x, y = RELATIONS[relation].first
        if RELATIONS[relation].either_way and chance.random() < 0.5:
            x, y = -x, -y
        first = second = self.together(chance)
        while second == first:
            second = self.together(chance)
        things = []
        for concept, way in ((first, 1), (second, -1)):
            scale = chance.uniform(*self.mixture.several)
            room = way * (1.0 - scale) / 2
            things.append(Thing(concept, at=self._near(x * room, y * room, scale, chance), scale=scale))
        return Scene(tuple(things), self._ground(chance), relation=relation)

    def _near(self, x: float, y: float, scale: float, chance: random.Random) -> tuple[float, float]:
        """A place near this one, within the picture."""
        room, shift = (1.0 - scale) / 2, self.mixture.shift
        x, y = (value + chance.uniform(-shift, shift) for value in (x, y))
        return max(-room, min(room, x)), max(-room, min(room, y))

    def scenery(self, chance: random.Random) -> Scene:
        scale, right, down = self._place(self.mixture.standing, chance, self.mixture.shift)
        on_ground = 0.47 - scale / 2  # its feet a little above the lower edge
        thing = Thing(self.things(chance), at=(4 * right, on_ground + down), scale=scale)
        return Scene((thing,), scenery=chance.choice(SCENERIES), view=chance.randrange(VIEWS))

    def style(self, chance: random.Random) -> Scene:
        style = chance.choice(STYLES)
        silhouette = style == "silhouette"
        thing = self._single((self.telling if silhouette else self.things)(chance), chance)
        return Scene((thing,), self._ground(chance, but="black" if silhouette else ""), style=style)


KINDS: dict[str, Callable[[Chooser, random.Random], Scene]] = {
    "plain": Chooser.plain,
    "ground": Chooser.ground,
    "recoloured": Chooser.recolour,
    "worn": Chooser.worn,
    "count": Chooser.several,
    "pair": Chooser.pair,
    "scenery": Chooser.scenery,
    "style": Chooser.style,
}
