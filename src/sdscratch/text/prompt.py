"""From a prompt to the ids that the text encoder reads, and what is said when a prompt is too long.

Weights and chunks of 75 tokens will belong here. This module imports no torch.
"""

from __future__ import annotations

import logging

from sdscratch.text.tokenizer import Tokenizer, Tokens

__all__ = ["cut_notice", "encode_prompt"]

log = logging.getLogger(__name__)

SHOWN = 1000  # characters of a cut text that a notice repeats


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt as one row for the text encoder: `tokenizer.length` ids, padded.

    A prompt that is too long is cut, with a warning in the log that names the text that was cut.

    Raises:
        UsageError: the prompt is not valid text.
    """
    tokens = tokenizer.encode(prompt)
    if tokens.truncated:
        log.warning(cut_notice(tokens))
    return tokens.padded(tokenizer.length, tokenizer.pad)


def cut_notice(tokens: Tokens) -> str:
    """One line that says where a prompt was cut, and what of it is not seen."""
    cut = tokens.cut if len(tokens.cut) <= SHOWN else tokens.cut[:SHOWN] + "…"
    return (
        f"the prompt is longer than {len(tokens.ids) - 2} tokens; "
        f"its last {tokens.truncated} are not used: {cut!r}"
    )
