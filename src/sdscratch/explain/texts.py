"""What the page says at each stage: a paragraph in plain words, equations, papers, lines of code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sdscratch.diffusion import guidance
from sdscratch.diffusion.samplers import SAMPLERS
from sdscratch.diffusion.schedule import Schedule
from sdscratch.explain.equations import below, math, over, raised, root
from sdscratch.generation.start import start_latent
from sdscratch.images.metadata.record import Record
from sdscratch.models.attention import DotProductAttention
from sdscratch.models.clip import Layer, TextEncoder
from sdscratch.models.layers import ResidualBlock
from sdscratch.models.unet import UNet, timestep_embedding
from sdscratch.models.vae import Decoder, Encoder, Gaussian
from sdscratch.text.chunks import chunk_a1111
from sdscratch.text.tokenizer import Tokenizer

__all__ = ["MOST_WORDS", "PAPERS", "STAGES", "StageText", "sampler_equations", "stage_texts"]

MOST_WORDS = 60  # of a stage's paragraph

# How a paper is called, and where it is.
PAPERS: Mapping[str, str] = {
    "Sennrich et al. 2016": "https://arxiv.org/abs/1508.07909",
    "Radford et al. 2021, section 2.4": "https://arxiv.org/abs/2103.00020",
    "Vaswani et al. 2017, eq. 1": "https://arxiv.org/abs/1706.03762",
    "Vaswani et al. 2017, section 3.5": "https://arxiv.org/abs/1706.03762",
    "Ho et al. 2020": "https://arxiv.org/abs/2006.11239",
    "Ho et al. 2020, section 2": "https://arxiv.org/abs/2006.11239",
    "Karras et al. 2022, section 2": "https://arxiv.org/abs/2206.00364",
    "Karras et al. 2022": "https://arxiv.org/abs/2206.00364",
    "Ho & Salimans 2022, eq. 6": "https://arxiv.org/abs/2207.12598",
    "Salimans & Ho 2022, appendix D": "https://arxiv.org/abs/2202.00512",
    "Song et al. 2021": "https://arxiv.org/abs/2010.02502",
    "Lu et al. 2022": "https://arxiv.org/abs/2211.01095",
    "Ronneberger et al. 2015": "https://arxiv.org/abs/1505.04597",
    "Rombach et al. 2022, section 3.1": "https://arxiv.org/abs/2112.10752",
    "Rombach et al. 2022, section 3.3": "https://arxiv.org/abs/2112.10752",
    "Hertz et al. 2022": "https://arxiv.org/abs/2208.01626",
    "Tang et al. 2022": "https://arxiv.org/abs/2210.04885",
    "Kingma & Welling 2014": "https://arxiv.org/abs/1312.6114",
    "Meng et al. 2022": "https://arxiv.org/abs/2108.01073",
}


@dataclass(frozen=True)
class StageText:
    """One stage in words.

    Attributes:
        paragraph: with terms of the glossary in brackets; at most `MOST_WORDS` words.
        equations: each with what its letters are.
        papers: keys of `PAPERS`.
        sources: functions and classes of the package.
    """

    name: str
    title: str
    paragraph: str
    equations: tuple[tuple[Markup, str], ...] = ()
    papers: tuple[str, ...] = ()
    sources: tuple[Any, ...] = ()


STAGES = ("tokens", "text", "noise", "schedule", "loop", "unet", "autoencoder", "picture")

DERIVATIVE = math(over("dx", "dσ"), " = ", over("x − D", "σ"))
FIRST_ORDER = math("x′ = x + ", over("x − D", "σ"), " (", "σ↓ − σ", ") + ", "σ↑", " ε")
SAMPLER_EQUATIONS: Mapping[str, tuple[tuple[Markup, str], ...]] = {
    "euler": ((math("x′ = x + ", over("x − D", "σ"), " (σ′ − σ)"), "D: the estimate of x₀; σ′: the next σ"),),
    **dict.fromkeys(
        ("ddim", "ddpm", "euler_a"),
        (
            (FIRST_ORDER, "down to σ↓, deeper than the next σ′, and back up with fresh noise ε"),
            (
                math(raised("σ↓", "2"), " + ", raised("σ↑", "2"), " = ", raised("σ′", "2")),
                "the two add up in variance",
            ),
        ),
    ),
    "dpm++2m": (
        (math("x′ = ", over("σ′", "σ"), " x + (1 − ", over("σ′", "σ"), ") D̃"), "σ′: the next σ"),
        (
            math("D̃ = D + ", over(Markup("<mrow><mi>D</mi><mo>−</mo></mrow>") + below("D", "−1"), "2 r")),
            "D₋₁: the estimate of the step before; r: the ratio of the two strides in log σ",
        ),
    ),
}
SAMPLER_PAPERS = {
    "ddim": "Song et al. 2021",
    "ddpm": "Ho et al. 2020",
    "dpm++2m": "Lu et al. 2022",
}
ANY_SAMPLER = (
    math("x′ = a x + ", Markup("<mo>∑</mo>"), below("b", "i"), below("D", "i"), " + c ε"),
    "whatever the sampler, a step is a sum of x, of estimates D of x₀ (this step's and earlier ones) and of "
    "fresh noise ε; the numbers below are measured from the tensors",
)


def sampler_equations(sampler: str) -> tuple[tuple[Markup, str], ...]:
    """How a sampler makes a step."""
    return SAMPLER_EQUATIONS.get(sampler, ((DERIVATIVE, "the slope that samplers follow"), ANY_SAMPLER))


def stage_texts(
    *, sampler: str, prediction: str, guided: bool, init: bool, scale: float
) -> Mapping[str, StageText]:
    """All stages in words, for a run of this kind.

    Args:
        prediction: "epsilon" or "v".
        init: whether it began from a picture.
        scale: of guidance.
    """
    made = [
        TOKENS,
        TEXT,
        NOISE_ON_A_PICTURE if init else NOISE,
        SCHEDULE,
        loop_text(sampler, prediction, guided, scale),
        UNET,
        ENCODED if init else AUTOENCODER,
        PICTURE,
    ]
    return {text.name: text for text in made}


TOKENS = StageText(
    "tokens",
    "Prompt → tokens",
    "A network reads numbers, not letters. So the prompt is cut into [tokens|token]: pieces from a fixed "
    "list, each with its number, the id. A frequent word is one piece, a rare one several. A start token "
    "comes first, an end token last, and padding fills the row. Brackets in a prompt give pieces a "
    "weight.",
    papers=("Sennrich et al. 2016",),
    sources=(Tokenizer.encode, chunk_a1111),
)
TEXT = StageText(
    "text",
    "Text encoder",
    "The [text encoder|text encoder (CLIP)] turns each token into a row of numbers that depends on its "
    "neighbours, too: in every layer a token looks at itself and at those before it, and takes over some of "
    "what it finds. The rows together are the [context]: all that the U-Net will ever know of the prompt.",
    (
        (
            math(
                "A = softmax (",
                over(Markup("<mrow><mi>Q</mi>") + raised("K", "T") + Markup("</mrow>"), root("d")),
                ")",
            ),
            "how much each token looks at each: rows of A sum to one; what is taken over is A·V",
        ),
    ),
    ("Radford et al. 2021, section 2.4", "Vaswani et al. 2017, eq. 1"),
    (Layer.forward, TextEncoder.encode, DotProductAttention.forward),
)
NOISE = StageText(
    "noise",
    "Noise",
    "Drawing begins with random numbers and nothing else: [noise], drawn from the normal distribution of "
    "mean 0 and variance 1. The [seed] settles every one of them: the same seed gives the same noise, "
    "and in the end the same picture. They fill a [latent], the small form in which pictures are drawn.",
    ((math(below("x", "T"), " = σ ε,   ε ∼ N (0, 1)"), "the latent to begin with"),),
    ("Ho et al. 2020",),
    (start_latent,),
)
NOISE_ON_A_PICTURE = StageText(
    "noise",
    "A picture under noise",
    "Drawing begins with the picture given: encoded into a [latent], and put under [noise] from the "
    "normal distribution. [Strength|strength] says how much: at 1 next to nothing of the picture is "
    "left, at 0 there is no noise. The [seed] settles every number of the noise.",
    ((math(below("x", "t"), " = z + σ ε,   ε ∼ N (0, 1)"), "z: the picture's latent"),),
    ("Meng et al. 2022",),
    (start_latent,),
)
SCHEDULE = StageText(
    "schedule",
    "Schedule",
    "The U-Net was trained on pictures under noise of many strengths, numbered by the [timestep] t. "
    "[σ|sigma] says how strong the noise is beside the picture, ᾱ which share of the picture's variance "
    "is left. Drawing goes down through some of these levels. At each, the U-Net is told t as waves of "
    "many lengths: the [time embedding].",
    (
        (math("σ = ", root(over("1 − ᾱ", "ᾱ"))), "noise against picture"),
        (
            math("emb (t) = [ cos (t ω", ") , sin (t ω", ") ]"),
            "with ω from 1 down to 1/10 000 in equal ratios",
        ),
    ),
    ("Ho et al. 2020, section 2", "Karras et al. 2022, section 2", "Vaswani et al. 2017, section 3.5"),
    (Schedule.sigma, timestep_embedding),
)
UNET = StageText(
    "unet",
    "Inside the U-Net",
    "The [U-Net] makes the latent smaller, level by level, to see the whole, and larger again to see "
    "details; skips carry what it saw across. [Residual blocks|residual block] mix neighbours and are "
    "told the time. In [cross-attention] every position asks which words concern it. The maps show how "
    "much each word is looked at, and from where.",
    (
        (
            math(
                "A = softmax (",
                over(Markup("<mrow><mi>Q</mi>") + raised("K", "T") + Markup("</mrow>"), root("d")),
                ")",
            ),
            "Q from the positions of the latent, K from the words; each position's row sums to one",
        ),
    ),
    (
        "Ronneberger et al. 2015",
        "Rombach et al. 2022, section 3.3",
        "Hertz et al. 2022",
        "Tang et al. 2022",
    ),
    (UNet.forward, ResidualBlock.forward, DotProductAttention.forward),
)
AUTOENCODER = StageText(
    "autoencoder",
    "Latent → pixels",
    "Denoising leaves a latent. The decoder, half of the [autoencoder|autoencoder (VAE)], makes pixels "
    "of it: convolutions, and again and again a doubling of both sides. Its channels are no colours, but "
    "features that it learnt; only the last convolution turns them into red, green and blue.",
    ((math("picture = D (z / s)"), "s: the latent scale, which brings latents to variance 1"),),
    ("Rombach et al. 2022, section 3.1", "Kingma & Welling 2014"),
    (Decoder.forward,),
)
ENCODED = StageText(
    "autoencoder",
    "Pixels → latent → pixels",
    "The encoder gives each number of the picture's latent a mean and a variance, the [posterior]; a "
    "sample of it is where drawing began. After denoising the decoder makes pixels: convolutions, and "
    "again and again a doubling of both sides. Its channels are learnt features; only the last "
    "convolution makes colours of them.",
    ((math("z = s (μ + exp (", over("1", "2"), " log ", raised("σ", "2"), ") ε)"), "s: the latent scale"),),
    ("Rombach et al. 2022, section 3.1", "Kingma & Welling 2014", "Meng et al. 2022"),
    (Encoder.forward, Gaussian.sample, Decoder.forward),
)
PICTURE = StageText(
    "picture",
    "The picture",
    "What the decoder gave, rounded to 256 levels of red, green and blue. The record in the file names "
    "all that it depends on: model, words, [seed], [sampler] and the rest. So the command below draws it "
    "once more: on one machine, with as many threads, to the last bit.",
    sources=(Record.to_json,),
)


def loop_text(sampler: str, prediction: str, guided: bool, scale: float) -> StageText:
    """The stage of the steps."""
    velocity = prediction == "v"
    estimate = (
        (
            math("D = ", over("x", "1 + " + "σ²"), " − ", over("σ", root("1 + σ²")), " v"),
            "the U-Net predicts the velocity v; D: the estimate of x₀",
        )
        if velocity
        else (math("D = x − σ ε"), "the U-Net predicts the noise ε; D: the estimate of x₀")
    )
    letter = "v" if velocity else "ε"
    pull = (
        math(f"{letter}̃ = {letter} (∅) + s ( {letter} (c) − {letter} (∅) )"),
        f"guidance with s = {scale:g}: without the prompt (∅), and with it (c)",
    )
    with_guidance = (
        "At each step the U-Net says what in the latent x is noise. Without it, an estimate of the "
        "picture is left, x₀: vague at first, then sharper. [Guidance|guidance] predicts twice, with the "
        "prompt and without, and goes further in the direction between them. The [sampler] then moves x "
        "towards x₀, and the next step begins."
    )
    without_guidance = (
        "At each step the U-Net says what in the latent x is noise. Without it, an estimate of the "
        "picture is left, x₀: vague at first, then sharper. There is no [guidance] in this run: the "
        "prompt alone is asked. The [sampler] then moves x towards x₀, and the next step begins."
    )
    papers = [
        "Karras et al. 2022",
        *(["Ho & Salimans 2022, eq. 6"] if guided else []),
        *(["Salimans & Ho 2022, appendix D"] if velocity else []),
        *([SAMPLER_PAPERS[sampler]] if sampler in SAMPLER_PAPERS else []),
    ]
    return StageText(
        "loop",
        "The loop",
        with_guidance if guided else without_guidance,
        (estimate, *((pull,) if guided else ()), *sampler_equations(sampler)),
        tuple(papers),
        (
            SAMPLERS[sampler],
            *((guidance.classifier_free,) if guided else ()),
            guidance.from_velocity if velocity else guidance.from_noise,
        ),
    )
