"""The terms that the page explains where they stand; docs/glossary.md says the same, and more."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup

__all__ = ["GLOSSARY", "anchor", "marked", "words"]

GLOSSARY: Mapping[str, str] = {
    "ancestral sampling": "going lower than asked at each step, and coming back up on fresh noise; η is its "
    "share",
    "autoencoder (VAE)": "the encoder makes latents of pictures, the decoder pictures of latents",
    "context": "what the text encoder says of the prompt: 77 × 768 numbers, which the U-Net attends to",
    "cross-attention": "every position looks at the prompt's tokens",
    "denoiser": "the U-Net as a sampler sees it: the estimate of x₀ in a noisy latent",
    "guidance": "going further in the direction that the prompt makes: ε̃ = ε(∅) + s·(ε(c) − ε(∅))",
    "latent": "a picture as the U-Net sees it: an eighth of the side, 4 channels (8 in the built-in model)",
    "negative prompt": "what stands in the place of the empty prompt in guidance, and pushes away",
    "noise": "independent normal numbers of mean 0 and variance 1, one for each number of a latent",
    "noise schedule": "the variance that each timestep adds, and the share of the picture that is left: "
    "ᾱ_t = ∏(1−β)",
    "posterior": "what the encoder really gives: a mean and a variance for each number of the latent, from "
    "which img2img samples",
    "prediction": "what the U-Net was trained to say: the noise, or the velocity v = √ᾱ·ε − √(1−ᾱ)·x₀",
    "residual block": "two convolutions that add to what goes through",
    "sampler": "a way down the noise levels, from noise to a latent",
    "seed": "the number that a picture's generator of noise begins with",
    "self-attention": "every position of the latent looks at every other",
    "sigma": "the same noisiness as a ratio of noise to picture: σ = √((1−ᾱ)/ᾱ); samplers work in σ-space, "
    "x = x₀ + σ·ε",
    "spacing (scheduler)": "which noise levels a sampler visits: leading, trailing, karras, …",
    "strength": "img2img: which share of the noise levels is gone through, from the picture under noise on",
    "text encoder (CLIP)": "the network that makes a context of tokens",
    "time embedding": "the timestep as sinusoids, then two layers",
    "timestep": "how noisy a latent is, as a number from 0 to 999: what the U-Net is told",
    "token": "a piece of a word, and its number in the vocabulary (49,408 of them in CLIP)",
    "U-Net": "the network that says what of a noisy latent is noise, at several sizes at once",
}

TERM = re.compile(r"\[([^\]|]+)(?:\|([^\]]+))?\]")


def anchor(term: str) -> str:
    """A term's place in the page."""
    return "term-" + re.sub(r"[^a-z]+", "-", term.lower()).strip("-")


def marked(text: str) -> Markup:
    """Text in which [latent], or [latents|latent], leads to the glossary.

    Raises:
        KeyError: a term that it does not have.
    """
    made, place = [], 0
    for found in TERM.finditer(text):
        shown, term = found[1], found[2] or found[1]
        link = '<a class="term" href="#{}" data-meaning="{}">{}</a>'
        made += [Markup("{}").format(text[place : found.start()])]
        made += [Markup(link).format(anchor(term), GLOSSARY[term], shown)]
        place = found.end()
    return Markup().join([*made, Markup("{}").format(text[place:])])


def words(text: str) -> int:
    """How many words a reader reads in it; what stands alone as a sign is none."""
    shown = TERM.sub(lambda found: found[1], text)
    return sum(1 for word in shown.split() if any(c.isalnum() for c in word))
