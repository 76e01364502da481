"""Things painted in another colour ("a blue apple"): which, in which colours, and how."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["HUES", "RECOLOURED", "colours_of", "recolour"]

# Hue in degrees; saturation and value that the strongest parts get.
HUES: dict[str, tuple[float, float, float]] = {
    "red": (2.0, 0.9, 0.9),
    "orange": (28.0, 0.95, 1.0),
    "yellow": (48.0, 0.85, 1.0),
    "green": (125.0, 0.75, 0.75),
    "blue": (213.0, 0.8, 0.9),
    "purple": (275.0, 0.7, 0.8),
    "pink": (335.0, 0.45, 1.0),
}

# Things of one main hue, by measurement (six tenths of what is seen lie within 40° of it) and by eye. Value:
# the colour that they have of their own, or nothing where one would not say so.
RECOLOURED: dict[str, str] = {
    "cat": "",
    "car": "red",
    "apple": "red",
    "moon": "yellow",
    "star": "yellow",
    "heart": "red",
    "bird": "blue",
    "fish": "blue",
    "horse": "",
    "fox": "orange",
    "frog": "green",
    "owl": "",
    "snake": "green",
    "butterfly": "",
    "octopus": "",
    "dolphin": "blue",
    "dinosaur": "green",
    "dragon": "green",
    "banana": "yellow",
    "strawberry": "red",
    "lemon": "yellow",
    "orange": "",
    "grapes": "purple",
    "tomato": "red",
    "mushroom": "red",
    "donut": "",
    "bus": "blue",
    "smiley": "yellow",
    "crown": "yellow",
    "guitar": "",
    "book": "blue",
    "key": "yellow",
    "umbrella": "purple",
    "gift": "",
    "balloon": "red",
    "rose": "red",
    "cactus": "green",
    "teddy bear": "",
    "pine tree": "green",
    "tulip": "",
    "pear": "green",
    "eggplant": "purple",
    "teapot": "",
    "crab": "",
    "lizard": "green",
    "lobster": "red",
    "taxi": "yellow",
    "race car": "red",
    "scooter": "",
    "lock": "",
    "bucket": "blue",
    "chair": "",
    "couch": "",
    "door": "",
    "t-shirt": "blue",
    "jeans": "blue",
    "dress": "blue",
    "shoe": "blue",
    "high heel": "red",
    "backpack": "red",
    "handbag": "",
    "diamond": "blue",
    "bell": "yellow",
    "tent": "",
    "circle": "red",
    "square": "red",
    "triangle": "red",
    "parrot": "",
    "thumbs up": "",
    "truck": "",
    "house": "",
}

STRONG_PARTS = 0.8  # the quantile of a thing's saturation and value that counts as its strongest part


def colours_of(name: str) -> tuple[str, ...]:
    """The colours that a thing can be painted in, its own left out; none for most things."""
    return tuple(colour for colour in HUES if name in RECOLOURED and colour != RECOLOURED[name])


def recolour(picture: Image.Image, colour: str) -> Image.Image:
    """Turn the picture's main hue, and what lies within 40 degrees of it, into another; leave the rest.

    The turned part is also made as strong and as light as the colour is: else a dark thing's yellow is brown.
    """
    hue, strongest, lightest = HUES[colour]
    hsv = np.asarray(picture.convert("RGB").convert("HSV")).astype(np.float32)
    hues, saturation, value = hsv[..., 0] * (360 / 255), hsv[..., 1] / 255, hsv[..., 2] / 255
    opaque = np.asarray(picture.getchannel("A")) / 255
    weights = saturation * opaque * (saturation > 0.25)
    histogram, edges = np.histogram(hues, bins=36, range=(0, 360), weights=weights)
    main = edges[histogram.argmax()] + 5
    distance = (hues - main + 180) % 360 - 180
    near = (abs(distance) < 40) & (saturation > 0.15)
    seen = near & (opaque > 0.5)
    turned = np.stack(
        [
            ((hue + 0.35 * distance) % 360) / 360,
            saturation * strongest / np.quantile(saturation[seen], STRONG_PARTS),
            value * lightest / np.quantile(value[seen], STRONG_PARTS),
        ],
        axis=-1,
    )
    mixed = np.where(near[..., None], turned.clip(0, 1) * 255, hsv).round().astype(np.uint8)
    result = Image.fromarray(mixed, "HSV").convert("RGB")
    result.putalpha(picture.getchannel("A"))
    return result
