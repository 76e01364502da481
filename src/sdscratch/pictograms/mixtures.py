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

    def __call__(self, rng: random.Random) -> str:
        return rng.choices(self.names, cum_weights=self.weights)[0]


def _weights(fame: Fame) -> dict[str, float]:
    """How often each thing comes, by its place in the list."""
    known = concepts()[: fame[-1][0]]
    return {each.name: next(w for upto, w in fame if rank < upto) for rank, each in enumerate(known)}


def _pool(names: Sequence[str], weights: Mapping[str, float]) -> Pool:
    return Pool(names, [weights[name] for name in names])


class Chooser:
    """Chooses scenes by a mixture, with any generator of random numbers.

    Args:
        weights: by how much things come more often, or less, than the mixture says where they are alone;
            those that are not named come as it says.
    """

    def __init__(self, mixture: Mixture, weights: Mapping[str, float] | None = None) -> None:
        self.mixture = mixture
        fame, weights = _weights(mixture.fame), weights or {}
        self.things = _pool(
            list(fame), {name: weight * weights.get(name, 1.0) for name, weight in fame.items()}
        )
        together = _weights(mixture.fame_together or mixture.fame)
        self.together = _pool(list(together), together)
        countable = {each.name for each in concepts() if each.countable}
        self.countable = _pool([name for name in together if name in countable], together)
        self.recoloured = _pool([name for name in RECOLOURED if name in fame], fame)
        self.heads = _pool([name for name in HEADS if name in fame], fame)
        self.telling = _pool([name for name in fame if name in TELLING_SHAPES], fame)
        self.kinds = Pool(list(mixture.shares), list(mixture.shares.values()))

    def scene(self, rng: random.Random) -> Scene:
        """A scene for training: nothing in it is held out."""
        kind = self.kinds(rng)
        while True:
            scene = KINDS[kind](self, rng)
            if not any(map(held_out, combinations(scene))):
                return scene

    def held_out(self, kind: str, rng: random.Random) -> Scene:
        """A scene of this kind, all of whose combinations are held out.

        Raises:
            ValueError: the kind combines nothing.
        """
        if kind == "plain":
            raise ValueError("a plain scene combines nothing that could be held out")
        while True:
            scene = KINDS[kind](self, rng)
            if all(map(held_out, combinations(scene))):
                return scene

    def _place(
        self, span: tuple[float, float], rng: random.Random, shift: float
    ) -> tuple[float, float, float]:
        """A scale, and a shift to the right and down that keeps the whole thing in the picture."""
        scale = rng.uniform(*span)
        room = min(shift, (1.0 - scale) / 2)
        return scale, rng.uniform(-room, room), rng.uniform(-room, room)

    def _single(self, concept: str, rng: random.Random, **about: object) -> Thing:
        if rng.random() < self.mixture.anywhere:
            scale, right, down = self._place(self.mixture.small, rng, shift=0.5)
        else:
            scale, right, down = self._place(self.mixture.scale, rng, self.mixture.shift)
        return Thing(concept, at=(right, down), scale=scale, **about)  # type: ignore[arg-type]

    def _ground(self, rng: random.Random, but: str = "") -> str:
        if rng.random() < self.mixture.white:
            return "white"
        return rng.choice([colour for colour in BACKGROUNDS if colour not in ("white", but)])

    def plain(self, rng: random.Random) -> Scene:
        return Scene((self._single(self.things(rng), rng),))

    def ground(self, rng: random.Random) -> Scene:
        background = rng.choice([colour for colour in BACKGROUNDS if colour != "white"])
        return Scene((self._single(self.things(rng), rng),), background)

    def recolour(self, rng: random.Random) -> Scene:
        concept = self.recoloured(rng)
        colour = rng.choice(colours_of(concept))
        return Scene((self._single(concept, rng, colour=colour),), self._ground(rng, but=colour))

    def worn(self, rng: random.Random) -> Scene:
        number = 2 if rng.random() < self.mixture.dressed_twice else 1
        worn = rng.choice([each for each in sets() if len(each) == number])
        return Scene((self._single(self.heads(rng), rng, worn=worn),), self._ground(rng))

    def several(self, rng: random.Random) -> Scene:
        concept, number = self.countable(rng), rng.randint(2, 4)
        scale = rng.uniform(*self.mixture.several)
        room = (1.0 - scale) / 2
        things = tuple(
            Thing(concept, at=self._near(x * room, y * room, scale, rng), scale=scale)
            for x, y in rng.choice(LAYOUTS[number])
        )
        return Scene(things, self._ground(rng))

    def pair(self, rng: random.Random) -> Scene:
        relation = rng.choice(list(RELATIONS))
        x, y = RELATIONS[relation].first
        if RELATIONS[relation].either_way and rng.random() < 0.5:
            x, y = -x, -y
        first = second = self.together(rng)
        while second == first:
            second = self.together(rng)
        things = []
        for concept, way in ((first, 1), (second, -1)):
            scale = rng.uniform(*self.mixture.several)
            room = way * (1.0 - scale) / 2
            things.append(Thing(concept, at=self._near(x * room, y * room, scale, rng), scale=scale))
        return Scene(tuple(things), self._ground(rng), relation=relation)

    def _near(self, x: float, y: float, scale: float, rng: random.Random) -> tuple[float, float]:
        """A place near this one, within the picture."""
        room, shift = (1.0 - scale) / 2, self.mixture.shift
        x, y = (value + rng.uniform(-shift, shift) for value in (x, y))
        return max(-room, min(room, x)), max(-room, min(room, y))

    def scenery(self, rng: random.Random) -> Scene:
        scale, right, down = self._place(self.mixture.standing, rng, self.mixture.shift)
        on_ground = 0.47 - scale / 2  # its feet a little above the lower edge
        thing = Thing(self.things(rng), at=(4 * right, on_ground + down), scale=scale)
        return Scene((thing,), scenery=rng.choice(SCENERIES), view=rng.randrange(VIEWS))

    def style(self, rng: random.Random) -> Scene:
        style = rng.choice(STYLES)
        silhouette = style == "silhouette"
        thing = self._single((self.telling if silhouette else self.things)(rng), rng)
        return Scene((thing,), self._ground(rng, but="black" if silhouette else ""), style=style)


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
