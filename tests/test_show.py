"""Strangers' text does nothing on a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.show import escaped, listed, printable

HOSTILE = [
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]52;c;ZWNobw==\x07", "\x9b2J", "\r", "\x08", "\u202e", "\u2066",
    "\u200f", "\u061c", "\ufeff", "\u2028", "\udc1b", "\U000e0041", "\x00", "\x85",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_acts_is_escaped(text: str) -> None:
    for shown in (escaped(f"a{text}b"), printable(f"a{text}b")):
        assert shown.startswith("a")
        assert shown.endswith("b")
        assert "\\" in shown
        assert shown.isprintable()


@pytest.mark.parametrize(
    "text", ["りんご\u3000赤い", "👩\u200d👩\u200d👧", "می\u200cخواهم", "un\u00a0café", "a\nb", "“x”"]
)
def test_other_scripts_are_shown_as_they_are(text: str) -> None:
    assert escaped(text) == text


@given(st.text(st.characters()))
def test_nothing_that_controls_is_left_of_any_text(text: str) -> None:
    shown = escaped(text)
    for character in shown:
        category = unicodedata.category(character)
        assert category not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") or character == "\n"
        assert category != "Cf" or character in "\u200c\u200d"
    assert printable(text).isprintable()
    assert len(printable(text)) <= 200


def test_a_few_names_are_told_and_the_rest_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more tensors"
    assert listed(["a", "b", "c", "d"], "keys") == "a, b, c and 1 more keys"
