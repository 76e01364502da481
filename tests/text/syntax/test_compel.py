"""compel's weights, blends and conjunctions. What is wanted is what compel 2.5.1's own parser says."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.text.prompt import Blend, Span, Tag
from sdscratch.text.syntax.compel import conjunction

SYNTAX = st.text(st.sampled_from('ab ,.:()"\\+-=12blendan\n'), max_size=60)

MINUS_2 = 0.9**2


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("", [("", 1.0)]),
        ("a cat", [("a cat", 1.0)]),
        ("a cat++ on a mat-", [("a", 1.0), ("cat", 1.1**2), ("on a", 1.0), ("mat", 0.9)]),
        ("(two words)1.4 here", [("two words", 1.4), ("here", 1.0)]),
        (
            "(nested (inner)1.2 outer)1.1 x",
            [("nested", 1.1), ("inner", 1.1 * 1.2), ("outer", 1.1), ("x", 1.0)],
        ),
        ('"quoted words"-- x', [("quoted words", MINUS_2), ("x", 1.0)]),
        ("(a).attend(0.3) b", [("a", 0.3), ("b", 1.0)]),
        ("tree.attend(++)", [("tree", 1.1**2)]),
        ("cat.swap(dog) runs", [("cat runs", 1.0)]),
        ("red,blue", [("red, blue", 1.0)]),
        ("(red, blue)1.5", [("red , blue", 1.5)]),
        (r"\(a\) cat\+", [(r"(a) cat\+", 1.0)]),
        ("well-known 3.5 cat-5", [("well-known 3.5 cat-5", 1.0)]),
        ("(cat", [("(cat", 1.0)]),
        ("cat) +", [("cat) +", 1.0)]),
        ("(a = b)1.2", [("(a = b)1.2", 1.0)]),
        ("(a) b", [("a b", 1.0)]),
        ("(cat) 1.3", [("cat 1.3", 1.0)]),
        ("cat-1", [("cat-1", 1.0)]),
        ("(cat)-1", [("cat", 0.9), ("1", 1.0)]),
    ],
)
def test_weights_are_compels(prompt: str, wanted: list[tuple[str, float]]) -> None:
    [blend] = conjunction(prompt).blends
    [spans] = blend.prompts
    assert [(span.text, span.weight) for span in spans] == wanted
    assert (blend.shares, blend.weight) == ((1.0,), 1.0)


def row(text: str, weight: float = 1.0) -> tuple[Span, ...]:
    return (Span(text, weight),)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        (
            '("a red cat", "a blue dog").blend(0.7, 0.3)',
            [Blend((row("a red cat"), row("a blue dog")), (0.7, 0.3))],
        ),
        ("(cat, dog+).blend()", None),
        ('("a", b).blend(1, -0.5, no_normalize)', [Blend((row("a"), row("b")), (1.0, -0.5), False)]),
        ('("one", "two++").and()', [Blend((row("one"),)), Blend((row("two", 1.1**2),))]),
        ('("one", "two").and(1, 0.5) tail', [Blend((row("one"),)), Blend((row("two"),), weight=0.5)]),
        ('("one", "two") .add ( 2,1 )', [Blend((row("one"),), weight=2.0), Blend((row("two"),))]),
        ('("one").and()', [Blend((row("one"),))]),
        ('("one", "two").blend(1)', None),
        ('("one", "two").blend(1, 2) tail', None),
        ("(two words, cat).and()", None),
    ],
)
def test_blends_and_conjunctions_are_compels(prompt: str, wanted: list[Blend] | None) -> None:
    found = list(conjunction(prompt).blends)
    if wanted is None:  # what compel refuses is words
        [blend] = found
        assert len(blend.prompts) == 1
    else:
        assert found == wanted


def test_loras_are_kept() -> None:
    read = conjunction("a cat withLora(style, 0.5) useLora(other)")
    assert read.tags == (
        Tag("lora", "style:0.5", "withLora(style, 0.5)"),
        Tag("lora", "other", "useLora(other)"),
    )
    assert read.blends == (Blend((row("a cat"),)),)


@given(SYNTAX | st.text())
def test_any_text_is_read(text: str) -> None:
    blends = conjunction(text).blends
    assert all(prompt for blend in blends for prompt in blend.prompts)
    assert all(len(blend.prompts) == len(blend.shares) for blend in blends)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2000,
        "(" * 1000 + "a" + ")" * 1000,
        "(a " * 600 + ")1.1" * 600,
        '"' * 2000,
        '("a' * 600,
        "cat+ " * 500,
        "a.swap(" * 300,
        "((a).swap(" * 200 + "b" + "))" * 200,
    ],
)
def test_deep_nests_take_no_time(text: str) -> None:
    before = time.process_time()
    conjunction(text)
    assert time.process_time() - before < 1.0
