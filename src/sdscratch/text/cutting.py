"""A prompt as one row for the text encoder, cut where it is too long, as diffusers does it. No torch."""

from __future__ import annotations

import logging

from sdscratch.text.tokenizer import Tokenizer, Tokens

__all__ = ["cut_notice", "cut_prompt", "encode_prompt", "plain_row"]

log = logging.getLogger(__name__)

SHOWN = 1000  # characters of a cut text that a notice repeats


def cut_prompt(tokenizer: Tokenizer, prompt: str) -> Tokens:
    """A prompt's ids, cut to the tokenizer's length, and what was cut.

    Raises:
        UsageError: the prompt is not valid text.
    """
    tokens = tokenizer.encode(prompt)
    room = tokenizer.length - 2
    truncated = len(tokens.offsets) - room
    if truncated <= 0:
        return tokens
    return Tokens(
        ids=(*tokens.ids[: room + 1], tokenizer.end),
        pieces=(*tokens.pieces[: room + 1], tokens.pieces[-1]),
        cut=prompt[tokens.offsets[room] :],
        truncated=truncated,
        offsets=tokens.offsets[:room],
    )


def plain_row(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt as one row for the text encoder: `tokenizer.length` ids, cut or padded, without a word.

    Raises:
        UsageError: the prompt is not valid text.
    """
    return cut_prompt(tokenizer, prompt).padded(tokenizer.length, tokenizer.pad)


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The same, with a warning in the log that names the text that was cut."""
    tokens = cut_prompt(tokenizer, prompt)
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
