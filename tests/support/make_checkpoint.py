"""Make a random Stable Diffusion 1.x checkpoint: python tests/support/make_checkpoint.py OUT --size full."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# the folder above, not this one, in which Python would find our helpers before installed packages
sys.path[0] = str(Path(__file__).parents[1])

from sdscratch.models.config import SD1
from support.checkpoints import TINY, ema_tensors, make


def main() -> None:
    """Parse, make, print the path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the file, or with --format diffusers the folder, to make")
    parser.add_argument(
        "--size", choices=["full", "tiny"], default="tiny", help="full: 4.3 GB, and as much memory"
    )
    parser.add_argument("--format", choices=["safetensors", "ckpt", "diffusers"], default="safetensors")
    parser.add_argument(
        "--ema", action="store_true", help="add averages of the U-Net's weights (LDM layout only)"
    )
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists already")
    config = SD1 if options.size == "full" else TINY
    make(options.out, config, options.format, [ema_tensors(config)] if options.ema else [])
    print(options.out)


if __name__ == "__main__":
    main()
