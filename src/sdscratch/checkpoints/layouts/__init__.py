"""What every weight is called: in our networks, in LDM's single files and in diffusers' folders.

One file a network holds the names as data; `weights` expands them over a configuration and lists every weight
of the model with its three names and its shapes. Reading looks a weight up by the file's name, writing by
ours: both directions come from the one list. No module here imports torch.

rows.py         what a row of a table means, and how it is expanded and inverted
unet.py         the U-Net
text.py         OpenAI's text encoder; how many there are, and whose
openclip.py     OpenCLIP's, whose query, key and value are one tensor
autoencoder.py  encoder and decoder
controlnet.py   ControlNets
ip_adapter.py   IP-Adapters, and their image encoder
t2i_adapter.py  T2I-Adapters
esrgan.py       upscalers, in three generations of names
distilled.py    U-Nets with less in them, by what their files hold
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from sdscratch.checkpoints.layouts.autoencoder import decoder_weights, encoder_weights
from sdscratch.checkpoints.layouts.rows import Part, Shape, Weight, inverted, joined
from sdscratch.checkpoints.layouts.text import TEXTS, text_weights
from sdscratch.checkpoints.layouts.unet import unet_weights
from sdscratch.checkpoints.names import Layout
from sdscratch.models.config import SD1, ModelConfig

__all__ = [
    "FOLDERS",
    "PARTS",
    "PART_TITLES",
    "Part",
    "Shape",
    "Weight",
    "by_stored_name",
    "joined",
    "parts_in",
    "show",
    "weights",
]

PARTS: tuple[Part, ...] = ("text", "unet", "encoder", "decoder")  # of a model with one text encoder
PART_TITLES: Mapping[Part, str] = {
    "text": "text encoder",
    "text2": "second text encoder",
    "unet": "U-Net",
    "encoder": "picture encoder",
    "decoder": "picture decoder",
}
# Where a part lives in a diffusers folder.
FOLDERS: Mapping[Part, str] = {
    "text": "text_encoder",
    "text2": "text_encoder_2",
    "unet": "unet",
    "encoder": "vae",
    "decoder": "vae",
}


def parts_in(config: ModelConfig) -> tuple[Part, ...]:
    """The networks of a model."""
    return (*(part for part, _ in TEXTS[: len(config.texts)]), *PARTS[1:])


@lru_cache(maxsize=16)
def weights(config: ModelConfig) -> tuple[Weight, ...]:
    """Every weight of the model, part by part (SD 1.x: 1130)."""
    return (
        *text_weights(config),
        *unet_weights(config.unet),
        *encoder_weights(config.autoencoder),
        *decoder_weights(config.autoencoder),
    )


@lru_cache(maxsize=16)
def by_stored_name(config: ModelConfig, layout: Layout) -> Mapping[str, tuple[Weight, ...]]:
    """The names in a file of that layout, and the weights that each tensor holds: nearly always one."""
    return inverted(weights(config), layout)


def show(part: Part, name: str, config: ModelConfig = SD1) -> None:
    """Print what files call a weight of ours, for the examples at the top of each layout."""
    weight = next(weight for weight in weights(config) if (weight.part, weight.name) == (part, name))
    index, count = weight.piece
    cut = f", part {index + 1} of {count}" if count > 1 else ""
    form = ", transposed" if weight.transposed else ""
    if len(weight.ldm_shape) > len(weight.shape):
        form = ", as a 1×1 convolution"
    print(f"{weight.ldm}{cut}{form}")
    print(weight.diffusers)
