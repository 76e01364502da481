"""The string that rides in a model file's metadata."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sdscratch.errors import TokenizerError
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.text.vocabulary import AddedToken, Vocabulary, byte_pieces, clip_vocabulary
from support.prompts import random_prompts
from support.tokenizers import TOKENIZERS, clip_tokenizer, tiny_tokenizer


def variants() -> dict[str, Vocabulary]:
    vocabulary = tiny_tokenizer().vocabulary
    swapped = dict(vocabulary.ids) | {"!": vocabulary.ids['"'], '"': vocabulary.ids["!"]}
    longer = dict(vocabulary.ids) | {"<sks>": len(vocabulary.ids)}
    return {
        "CLIP's form": vocabulary,
        "no merges": Vocabulary.from_merges([]),
        "short": replace(vocabulary, length=16),
        "other padding": replace(vocabulary, pad="!", added=()),
        "other ids": replace(vocabulary, ids=swapped),
        "a new word": replace(
            vocabulary, ids=longer, added=(*vocabulary.added, AddedToken("<sks>", special=False))
        ),
        "other names": Vocabulary(
            vocabulary.merges, clip_vocabulary(vocabulary.merges, "[", "]>"), 77, "[", "]>", "]>", "]>"
        ),
    }


@pytest.mark.parametrize("name", variants())
def test_the_string_holds_all_of_a_form(name: str) -> None:
    vocabulary = variants()[name]
    text = vocabulary.to_json()
    again = Vocabulary.from_json(text)
    assert again == vocabulary
    assert list(again.ids.items()) == sorted(vocabulary.ids.items(), key=lambda item: item[1])
    assert again.to_json() == text
    ours, read = Tokenizer(vocabulary), Tokenizer.from_json(text)
    for prompt in random_prompts(7, 200):
        assert read.encode(prompt) == ours.encode(prompt)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_clips_form_takes_its_merges_alone(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    text = tokenizer.to_json()
    assert json.loads(text).keys() == {"merges"}
    assert "\n" not in text
    assert len(text) < 12 * len(tokenizer.vocabulary.merges) + 20


def test_the_string_does_not_depend_on_the_order_of_the_vocabulary() -> None:
    vocabulary = replace(tiny_tokenizer().vocabulary, ids=dict(tiny_tokenizer().vocabulary.ids) | {"☃": 9999})
    shuffled = replace(vocabulary, ids=dict(reversed(vocabulary.ids.items())))
    assert shuffled.to_json() == vocabulary.to_json()


def test_clips_string_is_half_a_megabyte() -> None:
    assert len(clip_tokenizer().to_json().encode()) < 530_000


def test_bytes_have_256_visible_pieces() -> None:
    pieces = byte_pieces()
    assert len(set(pieces)) == 256
    assert all(len(piece) == 1 and piece.isprintable() and not piece.isspace() for piece in pieces)


def test_two_merges_that_give_the_same_piece_share_its_id() -> None:
    vocabulary = Vocabulary.from_merges([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")])
    ids = vocabulary.ids
    assert [ids[piece] for piece in ("ab", "bc", "abc", vocabulary.start, vocabulary.end)] == [
        512,
        513,
        514,
        515,
        516,
    ]


HOSTILE = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "no merges": "{}",
    "merges as a list": '{"merges": ["a b"]}',
    "an odd piece": '{"merges": "a b c"}',
    "a merge of nothing known": '{"merges": "a zz"}',
    "an unknown entry": '{"merges": "", "code": "x"}',
    "a length of text": '{"merges": "", "length": "77"}',
    "a true length": '{"merges": "", "length": true}',
    "no room": '{"merges": "", "length": 1}',
    "a negative length": '{"merges": "", "length": -77}',
    "an end of null": '{"merges": "", "end": null}',
    "a pad without id": '{"merges": "", "pad": "<pad>"}',
    "a vocabulary of text": '{"merges": "", "vocabulary": "abc"}',
    "ids of text": '{"merges": "", "vocabulary": {"<|startoftext|>": "0", "<|endoftext|>": "1"}}',
    "true ids": '{"merges": "", "vocabulary": {"<|startoftext|>": true, "<|endoftext|>": false}}',
    "one id twice": '{"merges": "", "vocabulary": {"<|startoftext|>": 0, "<|endoftext|>": 0}}',
    "a huge id": '{"merges": "", "vocabulary": {"<|startoftext|>": 0, "<|endoftext|>": 99999999999}}',
    "added text": '{"merges": "", "added": "abc"}',
    "added numbers": '{"merges": "", "added": [3]}',
    "an added token without id": '{"merges": "", "added": [{"content": "<sks>"}]}',
    "an added token's flag of text": '{"merges": "", "added": [{"content": "a", "special": "no"}]}',
    "an added token's unknown flag": '{"merges": "", "added": [{"content": "a", "code": true}]}',
    "a lone surrogate": r'{"merges": "", "start": "\ud800", "vocabulary": {"\ud800": 0, "<|endoftext|>": 1}}',
    "a deep nest": '{"merges": ' + "[" * 100_000,
    "a number of a million digits": '{"merges": ' + "1" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_such_string_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(TokenizerError, match=r"inside the model file is broken \(.*--tokenizer") as caught:
        Tokenizer.from_json(HOSTILE[name])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
