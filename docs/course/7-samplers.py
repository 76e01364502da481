"""The same noise, the same network, several ways down: which comes nearest to the end, and how soon?"""

import sys

from PIL import Image

from sdscratch import load
from sdscratch.diffusion.guidance import guided
from sdscratch.diffusion.noise.seeded import Noise
from sdscratch.diffusion.sample import sample_to_end
from sdscratch.options import GenerateOptions

SIDE = 128
pipeline = load("default", device="cpu", dtype="float32")
prompt = pipeline.encode_prompts("a dog wearing sunglasses")[0].at(0)
negative = pipeline.encode_prompts("")[0].at(0)
network = pipeline.sampling.unet.network(1)


def drawn(sampler, steps):
    """The latent that a sampler ends with."""
    options = GenerateOptions("", sampler=sampler, scheduler="karras", steps=steps)
    path = pipeline.path(pipeline.resolve(options))
    noise = Noise([0], (8, 16, 16))
    denoise = guided(network, path, "v", prompt=prompt, negative=negative, scale=2.5)
    return sample_to_end(sampler, denoise, noise() * path.start_scale, path, noise)


truth = drawn("dpm++2m", 50)
rows = {"euler": (4, 8, 16), "heun": (2, 4, 8), "dpm++2m": (4, 8, 16), "euler_a": (4, 8, 16)}
sheet = Image.new("RGB", (3 * SIDE, len(rows) * SIDE))
for row, (sampler, steps) in enumerate(rows.items()):
    for column, each in enumerate(steps):
        latent = drawn(sampler, each)
        away = (latent - truth).square().mean() ** 0.5
        print(f"{sampler:8} {each:2} steps: {away:.3f} away")
        sheet.paste(pipeline.decode(latent)[0], (column * SIDE, row * SIDE))
sheet.save(sys.argv[1] if len(sys.argv) > 1 else "samplers.webp", quality=85)
