"""Which noise levels a run visits: several spacings of the same number of steps."""

import math
import sys

from PIL import Image, ImageDraw, ImageFont

from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.models.config import ScheduleConfig

STEPS, SPACINGS = 10, ("trailing", "normal", "karras", "exponential", "beta")
WIDTH, ROW, LEFT, FONT = 720, 44, 120, ImageFont.load_default(15)
schedule = Schedule(ScheduleConfig())
low, high = math.log(schedule.sigmas[0]), math.log(schedule.sigmas[-1])


def place(sigma):
    """Where a noise level stands in the picture: log σ from left, all noise, to right, none."""
    return LEFT + (WIDTH - LEFT - 30) * (high - math.log(sigma)) / (high - low)


sheet = Image.new("RGB", (WIDTH, ROW * (len(SPACINGS) + 1)), "#fbf9f5")
pencil = ImageDraw.Draw(sheet)
for t in (999, 900, 750, 500, 250, 100, 30, 0):  # rulings: how noisy a timestep is
    x = place(schedule.sigmas[t])
    pencil.line((x, 8, x, ROW * len(SPACINGS)), "#d9d2c5")
    label = f"{t}\n{schedule.sigmas[t]:.3g}"
    pencil.text((x, ROW * len(SPACINGS) + 20), label, "#5f5a52", FONT, "mm", align="center")
pencil.text((12, ROW * len(SPACINGS) + 20), "timestep\nsigma", "#5f5a52", FONT, "lm")
for row, spacing in enumerate(SPACINGS):
    path = make_sigma_schedule(schedule, "dpm++2m", spacing, STEPS)
    y = row * ROW + ROW // 2
    print(f"{spacing:<12}", *(f"{sigma:6.3f}" for sigma in path.sigmas))
    pencil.text((12, y), spacing, "#1d1b19", FONT, "lm")
    for sigma in path.sigmas[:-1]:  # the last is 0, which log σ never reaches
        x = place(sigma)
        pencil.ellipse((x - 6, y - 6, x + 6, y + 6), "#b8431a", "#fbf9f5")
sheet.save(sys.argv[1] if len(sys.argv) > 1 else "schedules.webp", lossless=True)
