"""Draw 24 pictures by the command line, to be compared pixel by pixel with those of another commit.

    python tests/support/same_pictures.py files FILES          a tiny random model, a LoRA for it, a sketch
    python tests/support/same_pictures.py draw FILES PICTURES  with the sdscratch that is imported
    python tests/support/same_pictures.py compare PICTURES OTHERS

Made files are kept, so that both commits draw from the same ones.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

# the folder above, not this one, in which Python would find our helpers before installed packages
sys.path[0] = str(Path(__file__).parents[1])

RANDOM, LORA, SKETCH = "tiny.safetensors", "tiny-lora.safetensors", "sketch.png"
APPLE = "the red apple on the dog"

# name: command, options; {} is the folder of made files
PICTURES: Mapping[str, str] = {
    "default": "txt2img 'a dog wearing sunglasses'",
    "default-batch": "txt2img pizza --batch-count 2 --batch-size 2",
    "default-euler": "txt2img 'an owl on a yellow background' --sampler euler --scheduler trailing --steps 8",
    "default-tiles": "txt2img 'a snowman' --tile 128 --size 192x160 --steps 6",
    "default-low-memory": "txt2img 'a red apple' --low-memory --negative-prompt green --steps 6",
    "default-img2img": "img2img {}/sketch.png 'a lemon' --strength 0.6 --size 128x128",
    "ddpm": "txt2img RANDOM --sampler ddpm",
    "ddim": "txt2img RANDOM --sampler ddim --eta 0.5",
    "euler": "txt2img RANDOM --sampler euler",
    "euler-a": "txt2img RANDOM --sampler euler_a --scheduler leading",
    "heun": "txt2img RANDOM --sampler heun --scheduler karras",
    "dpmpp-2m": "txt2img RANDOM --sampler 'DPM++ 2M Karras'",
    "exponential": "txt2img RANDOM --sampler dpm++2m --scheduler exponential",
    "normal": "txt2img RANDOM --sampler euler_a --scheduler normal",
    "linspace": "txt2img RANDOM --sampler ddpm --scheduler linspace",
    "unguided": "txt2img RANDOM --sampler ddim --cfg-scale 1 --size 72x104",
    "clip-skip": "txt2img RANDOM --clip-skip 1 --negative-prompt cat",
    "lora": "txt2img RANDOM --sampler euler --lora {}/tiny-lora.safetensors:0.7",
    "lora-tag": "txt2img RANDOM '<lora:{}/tiny-lora.safetensors:0.5>' --sampler heun",
    "deep-cache": "txt2img RANDOM --sampler ddim --deep-cache 3 --steps 7",
    "interval": "txt2img RANDOM --sampler dpm++2m --cfg-interval 0.5:5",
    "bfloat16": "txt2img RANDOM --sampler euler --dtype bfloat16",
    "img2img": "img2img {}/sketch.png RANDOM --strength 0.7 --sampler dpm++2m",
    "img2img-keeps": "img2img {}/sketch.png RANDOM --strength 0 --size 96x64 --fit contain",
}


def make_files(folder: Path) -> None:
    """A tiny random model, a LoRA for it, and a picture to start from."""
    from support.checkpoints import ldm_tensors, self_contained, write_ldm
    from support.loras import changes, targets, write_lora

    folder.mkdir(parents=True)
    write_ldm(folder / RANDOM, ldm_tensors(), self_contained())
    write_lora(folder / LORA, changes(targets()))
    y, x = np.mgrid[:80, :64].astype(np.float32)
    pixels = np.stack([4 * x % 256, 3 * y % 256, 128 + 100 * np.sin(x * y / 300)], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / SKETCH)


def words(recipe: str, files: Path) -> list[str]:
    """What is typed."""
    import shlex

    typed: list[str] = []
    for word in shlex.split(recipe.replace("{}", str(files))):
        typed += [APPLE, "--model", str(files / RANDOM)] if word == "RANDOM" else [word]
    # a tag belongs into the prompt
    tags = [word for word in typed if word.startswith("<lora:")]
    return [word + "".join(tags) if word == APPLE else word for word in typed if word not in tags]


def draw(files: Path, pictures: Path) -> None:
    """Draw all that are not there yet."""
    pictures.mkdir(parents=True, exist_ok=True)
    for number, (name, recipe) in enumerate(PICTURES.items()):
        typed = words(recipe, files)
        steps = [] if "--steps" in typed else ["--steps", "5"]
        if not list(pictures.glob(f"{name}*.png")):
            ending = ["--seed", str(number), *steps, "--output", str(pictures / f"{name}.png"), "--quiet"]
            subprocess.run([sys.executable, "-m", "sdscratch", *typed, *ending], check=True)


def compare(one: Path, other: Path) -> int:
    """Print what differs; how many do."""
    names = sorted({path.name for folder in (one, other) for path in folder.glob("*.png")})
    differing = 0
    for name in names:
        if not ((one / name).exists() and (other / name).exists()):
            print(f"{name}: only one of them is there")
            differing += 1
            continue
        a, b = (np.asarray(Image.open(folder / name)).astype(int) for folder in (one, other))
        if a.shape != b.shape or (a != b).any():
            print(
                f"{name}: differs" + (f" by up to {abs(a - b).max()}" if a.shape == b.shape else " in size")
            )
            differing += 1
    print(f"{len(names)} pictures, {differing} differ")
    return differing


def main() -> None:
    """Do what the first argument says."""
    commands: Mapping[str, Callable[..., object]] = {"files": make_files, "draw": draw, "compare": compare}
    command, *folders = sys.argv[1:]
    sys.exit(bool(commands[command](*map(Path, folders))))


if __name__ == "__main__":
    main()
