"""From prompts to what the U-Net is told of them, each prompt encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdscratch.addons.apply import applied_loras
from sdscratch.addons.embedding import Embedding, check_width, read_embedding
from sdscratch.checkpoints.places import known_embeddings
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.generation.between import between
from sdscratch.generation.networks import Networks
from sdscratch.generation.requests import Towards
from sdscratch.generation.told import ToldPart
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import UNetConfig
from sdscratch.options import ResolvedOptions
from sdscratch.text.chunks import Chunk
from sdscratch.text.emphasis import encode_part, insert_vectors
from sdscratch.text.prompt import take_tags
from sdscratch.text.reading import SYNTAXES, PlannedPart, plan_prompt
from sdscratch.text.syntax.editing import check_edits

__all__ = ["CONTEXTS_KEPT", "PromptEncoder", "ToldPart", "planned_evaluations", "second_pass"]

CONTEXTS_KEPT = 32  # encoded prompts, of 240 kB each in Stable Diffusion


def second_pass(scale: float, unet: UNetConfig) -> float:
    """The scale by which the negative prompt counts: 1, not at all, where the U-Net is told it."""
    return 1.0 if unet.guidance is not None else scale


def planned_evaluations(sampler: str, steps: int) -> int:
    """How often the network is asked, as prompt editing counts it: a sampler's steps times its order."""
    asked = SAMPLERS[sampler].denoisings  # n, 2n-1, 3n-2, adaptive, …
    return steps * (int(asked[0]) if asked[0].isdigit() else 1)


def named(part: PlannedPart) -> frozenset[str]:
    """The embeddings whose vectors stand in a part, by name."""
    chunks = (chunk for stage in part.stages for chunk in stage.chunks)
    return frozenset(place.name for chunk in chunks for place in chunk.vectors)


def guides(scale: float, prompt: Sequence[ToldPart]) -> bool:
    """Whether the negative prompt plays a part: above scale 1, and where the prompt is not one text alone."""
    return scale > 1.0 or len(prompt) > 1 or prompt[0].weight != 1.0


class PromptEncoder:
    """Prompts → conditionings of one row, of which the newest are kept: encoded once, and warned of once.

    Args:
        embeddings: textual inversions that prompts may name, beside those in the folders where they are kept
            and those that come with LoRAs.
    """

    def __init__(self, networks: Networks, embeddings: Sequence[Embedding] = ()) -> None:
        self.networks = networks
        self.given = tuple(embeddings)
        self.newest: tuple[Embedding, ...] = ()  # those in the newest picture's prompts
        self._kept: dict[tuple[Any, ...], tuple[ToldPart, ...]] = {}  # the newest last

    def __call__(
        self,
        text: str,
        *,
        syntax: str = "a1111",
        emphasis: str | None = None,
        clip_skip: int = 0,
        evaluations: int = 1,
        negative: bool = False,
    ) -> tuple[ToldPart, ...]:
        """The parts of a prompt without add-on tags. One prompt at a time: none depends on another.

        Args:
            emphasis: what weights do, one of `text.reading.EMPHASES`; by default as the syntax's tool has it.
            evaluations: how often the network will be asked: what editing counts.
            negative: AND means nothing, and neither does a number at the end.
        """
        emphasis = emphasis or SYNTAXES[syntax].emphasis
        key = (text, syntax, emphasis, clip_skip, evaluations, negative)
        told = self._kept.pop(key, None)
        if told is None:
            told = self._encode(text, syntax, emphasis, clip_skip, evaluations, negative)
        self._kept[key] = told
        for oldest in list(self._kept)[:-CONTEXTS_KEPT]:
            del self._kept[oldest]
        return told

    def of(
        self, options: ResolvedOptions, towards: Towards | None = None
    ) -> tuple[tuple[ToldPart, ...], tuple[ToldPart, ...]]:
        """The parts of the prompt, and those of the negative one: none where guidance needs none.

        Args:
            towards: another prompt that the prompt is mixed with.

        Raises:
            UsageError: the other one has another number of texts joined by AND.
        """
        evaluations = planned_evaluations(options.sampler, options.steps)
        asked = partial(
            self,
            syntax=options.prompt_syntax,
            emphasis=options.emphasis,
            clip_skip=options.clip_skip,
            evaluations=evaluations,
        )
        text = take_tags(options.prompt)[0]
        if SYNTAXES[options.prompt_syntax].edits:
            check_edits(text, evaluations)
        negative: tuple[ToldPart, ...] = ()
        scale = second_pass(options.cfg_scale, self.networks.files.config.unet)
        if scale > 1.0:
            negative = asked(options.negative_prompt, negative=True)
        prompt = asked(text)
        if towards is not None:
            empty = asked("")[0].at(0).context
            prompt = between(prompt, asked(towards.prompt), towards.share, empty)
        if guides(scale, prompt) and not negative:
            negative = asked(options.negative_prompt, negative=True)
        self.newest = tuple(dict.fromkeys(each for part in (*prompt, *negative) for each in part.embeddings))
        self.networks.done("text")
        return prompt, negative

    def clear(self) -> None:
        """Forget all, as another text encoder would say something else."""
        self._kept.clear()

    def embeddings(self, text: str) -> tuple[Embedding, ...]:
        """Those that a prompt may name: given ones, LoRAs', and those in folders that it mentions."""
        width = self.networks.files.config.text.width
        loras = (change.lora.embeddings for change in applied_loras(self.networks.files))
        found = {each.name: each for bundle in loras for each in bundle} | {e.name: e for e in self.given}
        low = text.lower()
        for name, path in known_embeddings().items():
            if name not in found and name.lower() in low:
                embedding = read_embedding(path, width)
                check_width(embedding, width)
                found[name] = embedding
        return tuple(found.values())

    def _encode(
        self, text: str, syntax: str, emphasis: str, clip_skip: int, evaluations: int, negative: bool
    ) -> tuple[ToldPart, ...]:
        tokenizer = self.networks.files.tokenizer
        known = self.embeddings(text)
        planned = plan_prompt(
            text,
            tokenizer,
            syntax,
            steps=evaluations,
            embeddings=known,
            negative=negative,
            literal=emphasis == "none",
        )
        vectors = {each.name: each for each in known}

        def encode(chunks: Sequence[Chunk]) -> Tensor:
            return self._run(chunks, clip_skip, vectors)

        return tuple(
            ToldPart(
                part,
                tuple(
                    Conditioning(context[None]) for context in encode_part(part, tokenizer, encode, emphasis)
                ),
                tuple(each for each in known if each.name in named(part)),
            )
            for part in planned
        )

    def _run(self, chunks: Sequence[Chunk], clip_skip: int, known: Mapping[str, Embedding]) -> Tensor:
        """[n, t, d] float32 of n chunks, as the text encoder has them."""
        device = self.networks.placement.device
        ids = torch.tensor([chunk.ids for chunk in chunks], device=device)
        hidden = None
        if any(chunk.masked for chunk in chunks):
            hidden = torch.zeros(ids.shape, dtype=torch.bool, device=device)
            for row, chunk in zip(hidden, chunks, strict=True):
                row[list(chunk.masked)] = True

        def compute(network: Any) -> Tensor:
            if not any(chunk.vectors for chunk in chunks):
                plain: Tensor = network(ids, clip_skip, hidden=hidden)
                return plain
            own = network.tokens(ids)
            vectors = {name: each.vectors.to(own) for name, each in known.items()}
            embedded = insert_vectors(own, chunks, vectors)
            drawn: Tensor = network(ids, clip_skip, embedded=embedded, hidden=hidden)
            return drawn

        return self.networks.run("text", compute)
