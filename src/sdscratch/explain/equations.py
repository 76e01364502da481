"""Equations as MathML, which browsers set and screen readers read, from a few functions.

math("σ = ", root(over("1 − ᾱ", "ᾱ")))
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

__all__ = ["below", "math", "over", "raised", "root"]

Part = str | Markup  # plain text is split into identifiers, numbers and operators

TOKEN = re.compile(r"(?P<mn>\d+(?:\.\d+)?)|(?P<word>[a-z]{2,})|(?P<mi>[^\W\d_][′↑↓̃̄]*)|(?P<mo>\S)")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋ₜₖᵢ", "0123456789−tki")
SMALL = re.compile(r"([^\W\d_][′↑↓̃̄]*)([₀-₉₋ₜₖᵢ]+)")


def math(*parts: Part) -> Markup:
    """A displayed equation."""
    return Markup('<math display="block">{}</math>').format(row(*parts))


def row(*parts: Part) -> Markup:
    """Parts side by side."""
    inner = Markup().join(part if isinstance(part, Markup) else plain(part) for part in parts)
    return Markup("<mrow>{}</mrow>").format(inner)


def over(top: Part, bottom: Part) -> Markup:
    """A fraction."""
    return Markup("<mfrac>{}{}</mfrac>").format(row(top), row(bottom))


def root(inside: Part) -> Markup:
    """A square root."""
    return Markup("<msqrt>{}</msqrt>").format(row(inside))


def below(base: Part, index: Part) -> Markup:
    """A letter with an index."""
    return Markup("<msub>{}{}</msub>").format(row(base), row(index))


def raised(base: Part, power: Part) -> Markup:
    """A power."""
    return Markup("<msup>{}{}</msup>").format(row(base), row(power))


def plain(text: str) -> Markup:
    """Text as MathML: x₀ becomes a letter with an index, words stand upright."""
    made, place = [], 0
    for found in SMALL.finditer(text):
        made.append(tokens(text[place : found.start()]))
        letter, index = found.groups()
        made.append(below(letter, index.translate(SUBSCRIPTS)))
        place = found.end()
    return Markup().join([*made, tokens(text[place:])])


def tokens(text: str) -> Markup:
    """Each identifier, number and operator in its element."""
    made = []
    for found in TOKEN.finditer(text):
        kind = found.lastgroup or "mo"
        tag = "mi" if kind == "word" else kind
        made.append(Markup("<{0}>{1}</{0}>").format(Markup(tag), escape(found[0])))
    return Markup().join(made)
