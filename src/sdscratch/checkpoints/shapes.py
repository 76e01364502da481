"""Which shapes models have whose files do not say, and what such models are called. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from sdscratch.models.config import SD1, ModelConfig, UNetConfig
from sdscratch.tensorfiles.identify import Kind

__all__ = ["SD1_INPAINTING", "SD1_INSTRUCTED", "SHAPES", "WHAT", "pipeline_of"]

# Rombach et al.'s 1.5-inpainting, and InstructPix2Pix (Brooks et al. 2023)
SD1_INPAINTING = ModelConfig(unet=UNetConfig(in_channels=9))
SD1_INSTRUCTED = ModelConfig(unet=UNetConfig(in_channels=8))

# What single files are that say nothing of their shape.
SHAPES: Mapping[Kind, ModelConfig] = {
    Kind.SD1: SD1,
    Kind.SD1_EMA: SD1,
    Kind.INPAINTING: SD1_INPAINTING,
    Kind.PIX2PIX: SD1_INSTRUCTED,
}
WHAT: Mapping[ModelConfig, str] = {
    SD1: "a Stable Diffusion 1.x model",
    SD1_INPAINTING: "a Stable Diffusion 1.x inpainting model",
    SD1_INSTRUCTED: "a Stable Diffusion 1.x model that follows instructions (InstructPix2Pix)",
}


def pipeline_of(unet: UNetConfig) -> str:
    """Which of diffusers' pipelines draws with such a U-Net."""
    kinds = {"mask": "Inpaint", "picture": "InstructPix2Pix", None: ""}
    return f"StableDiffusion{kinds[unet.beside]}Pipeline"
