"""A picture as a latent, and what stands in it."""

import sys
from pathlib import Path

from PIL import Image

from sdscratch import load
from sdscratch.images.tensors import to_picture, to_tensor

SIDE = 128
pipeline = load("default", device="cpu", dtype="float32")
pictures = Image.open(Path(__file__).parents[2] / "weights" / "pictures" / "grid.png").convert("RGB")
dog, rocket = (pictures.crop((left, 0, left + SIDE, SIDE)) for left in (0, 2 * SIDE))
z, other = (pipeline.encode_picture(to_tensor(each), None) for each in (dog, rocket))
print(f"{to_tensor(dog).numel():,} numbers of pixels, {z.numel():,} of the latent")
print(f"latent: mean {z.mean():.2f}, standard deviation {z.std():.2f}")
scale = pipeline.files.config.autoencoder.latent_scale
doubts = (pipeline.networks["encoder"](to_tensor(dog)).log_variance / 2).exp() * scale
print("means' spread by channel:", *(f"{each.std():.2f}" for each in z[0]))
print("the encoder's doubt:     ", *(f"{each.mean():.2f}" for each in doubts[0]))
(again,) = pipeline.decode(z)
error = (to_tensor(again) - to_tensor(dog)).square().mean()
print(f"there and back: PSNR {10 * (4 / error).log10():.1f} dB")

tiles = [to_picture(channel.expand(1, 3, -1, -1) / 3) for channel in z[0]]
halfway = to_picture((to_tensor(dog) + to_tensor(rocket)) / 2)
tiles += [dog, again, halfway, *pipeline.decode((z + other) / 2)]
for channel in range(4):
    without = z.clone()
    without[:, channel] = 0
    tiles += pipeline.decode(without)
sheet = Image.new("RGB", (8 * SIDE, 2 * SIDE))
for number, tile in enumerate(tiles):
    tile = tile.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    sheet.paste(tile, (number % 8 * SIDE, number // 8 * SIDE))
sheet.save(sys.argv[1] if len(sys.argv) > 1 else "latents.webp", quality=85)
