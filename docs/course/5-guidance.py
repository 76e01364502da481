"""From noise to picture in the open, under guidance of several strengths."""

import sys

from PIL import Image

from sdscratch import load
from sdscratch.diffusion.guidance import guided
from sdscratch.diffusion.noise.seeded import Noise
from sdscratch.diffusion.sample import sample_to_end
from sdscratch.images.tensors import to_tensor
from sdscratch.options import GenerateOptions

SIDE = 128
pipeline = load("default", device="cpu", dtype="float32")
options = pipeline.resolve(GenerateOptions("a dog wearing sunglasses", steps=6))
prompt = pipeline.encode_prompts(options.prompt)[0].at(0)
negative = pipeline.encode_prompts("")[0].at(0)
network, path = pipeline.sampling.unet.network(1), pipeline.path(options)

scales = (1.0, 2.5, 6.0, 12.0)
sheet = Image.new("RGB", (SIDE * len(scales), SIDE))
for column, scale in enumerate(scales):
    noise = Noise([0], (8, 16, 16))
    denoise = guided(network, path, "v", prompt=prompt, negative=negative, scale=scale)
    latent = sample_to_end(options.sampler, denoise, noise() * path.start_scale, path, noise)
    (picture,) = pipeline.decode(latent)
    flat = (to_tensor(picture).abs() > 0.99).float().mean()
    print(f"scale {scale:4}: RMS {latent.square().mean() ** 0.5:.2f}, {flat:.0%} of the levels at an end")
    sheet.paste(picture, (column * SIDE, 0))
sheet.save(sys.argv[1] if len(sys.argv) > 1 else "guidance.webp", quality=85)
