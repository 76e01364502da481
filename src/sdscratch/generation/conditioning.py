"""From prompts to what the U-Net is told of them, each prompt encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdscratch.generation.networks import Networks
from sdscratch.models.conditioning import Conditioning
from sdscratch.text.cutting import encode_prompt

__all__ = ["CONTEXTS_KEPT", "PromptEncoder"]

CONTEXTS_KEPT = 32  # encoded prompts, of 240 kB each in Stable Diffusion


class PromptEncoder:
    """Prompts → conditionings, of which the newest are kept: encoded once, and warned of once."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._kept: dict[tuple[str, int], Tensor] = {}  # the newest last

    def __call__(self, prompts: Sequence[str], clip_skip: int) -> list[Conditioning]:
        """Conditionings of one row. One prompt at a time: no picture depends on another's prompt."""
        contexts = []
        for text in prompts:
            known = self._kept.pop((text, clip_skip), None)
            context = self._encode(text, clip_skip) if known is None else known
            contexts.append(context)
            self._kept[text, clip_skip] = context
        for oldest in list(self._kept)[:-CONTEXTS_KEPT]:
            del self._kept[oldest]
        self.networks.done("text")
        return [Conditioning(context) for context in contexts]

    def clear(self) -> None:
        """Forget all, as another text encoder would say something else."""
        self._kept.clear()

    def _encode(self, text: str, clip_skip: int) -> Tensor:
        row = encode_prompt(self.networks.files.tokenizer, text)
        ids = torch.tensor([row], device=self.networks.placement.device)
        return self.networks.run("text", lambda network: network(ids, clip_skip))
