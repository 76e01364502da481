"""One look of the U-Net: what it is given, what its blocks make of it, and what it says."""

import sys
from pathlib import Path

import torch
from PIL import Image

from sdscratch import load
from sdscratch.diffusion.guidance import network_denoiser
from sdscratch.diffusion.noise.seeded import Noise
from sdscratch.explain.hooks import Attentions, UNetWatch
from sdscratch.images.tensors import to_picture, to_tensor
from sdscratch.options import GenerateOptions

SIGMA, SIDE = 3.0, 128
pipeline = load("default", device="cpu", dtype="float32")
pictures = Image.open(Path(__file__).parents[2] / "weights" / "pictures" / "grid.png").convert("RGB")
x0 = pipeline.encode_picture(to_tensor(pictures.crop((0, 0, SIDE, SIDE))), None)  # [1, 8, 16, 16]
x = x0 + SIGMA * Noise([0], tuple(x0.shape[1:]))()
told = pipeline.encode_prompts("a dog wearing sunglasses")[0].at(0)
path = pipeline.path(pipeline.resolve(GenerateOptions("")))
denoise = network_denoiser(pipeline.sampling.unet.network(1), path, "v", told)
watch = UNetWatch()
watch.attach(pipeline.networks["unet"])
watch.begin(0, Attentions(torch.eye(told.context.shape[1])))
estimate = denoise(x, SIGMA)
ways = {"down": [*pipeline.decode(x)], "up": [*pipeline.decode(estimate)]}
groups = {name.rpartition(".")[0]: output for name, output in watch.outputs.items()}  # its last block's
for name, output in groups.items():
    print(f"{name:8} {' × '.join(map(str, output.shape)):14} RMS {output.rms:.2f}")
    tile = to_picture((output.maps[0] / output.maps[0].abs().max()).expand(1, 3, -1, -1))
    ways.setdefault(name.partition(".")[0], []).append(tile)
print(f"RMS of the error of D: {(estimate - x0).square().mean() ** 0.5:.2f}")
sheet = Image.new("RGB", (8 * SIDE, 2 * SIDE), "white")
end, *up = ways["up"]
for place, tile in enumerate((*ways["down"], *ways["middle"], end, *reversed(up))):
    tile = tile.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    sheet.paste(tile, (place % 8 * SIDE, place // 8 * SIDE))
sheet.save(sys.argv[1] if len(sys.argv) > 1 else "unet.webp", quality=80)
