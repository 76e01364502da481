"""A picture under more and more noise, and the best guess at what is under it."""

import sys

import torch
from PIL import Image

from sdscratch.diffusion.noise.seeded import Noise
from sdscratch.diffusion.schedule import Schedule
from sdscratch.images.tensors import to_picture, to_tensor
from sdscratch.models.config import ScheduleConfig
from sdscratch.training.dataset.shapes import draw, scene

SIDE, SHOWN = 16, 96
schedule = Schedule(ScheduleConfig())
known = torch.cat([to_tensor(draw(scene(0, index), SIDE)) for index in range(1000)])
x0 = known[0]
noise = Noise([0], tuple(x0.shape))()[0]


def best_guess(x, sigma):
    """The mean of all pictures that may be under the noise, each counted by how likely it is."""
    distances = (known - x).square().sum((1, 2, 3))
    likely = torch.softmax(-distances / (2 * sigma**2), 0)
    return (likely[:, None, None, None] * known).sum(0), 1 / likely.square().sum()


print(scene(0, 0).caption)
print("  t  √ᾱ    √(1−ᾱ)  σ      pictures that it may be")
sheet = Image.new("RGB", (6 * SHOWN, 2 * SHOWN))
for column, t in enumerate((0, 200, 400, 600, 800, 999)):
    share, sigma = float(schedule.alphas_bar[t]), float(schedule.sigmas[t])
    x = share**0.5 * x0 + (1 - share) ** 0.5 * noise
    guess, many = best_guess(x / share**0.5, sigma)
    print(f"{t:3}  {share**0.5:.3f}  {(1 - share) ** 0.5:.3f}  {sigma:6.3f}  {many:.0f}")
    for row, tile in enumerate((x, guess)):
        tile = to_picture(tile[None]).resize((SHOWN, SHOWN), Image.Resampling.NEAREST)
        sheet.paste(tile, (column * SHOWN, row * SHOWN))
sheet.save(sys.argv[1] if len(sys.argv) > 1 else "noise.webp", lossless=True)
