"""Tokenizer folders and files: whatever transformers' CLIPTokenizer reads gives the same ids here."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdscratch.errors import TokenizerError
from sdscratch.text.tokenizer import Tokenizer
from support.prompts import random_prompts
from support.tokenizers import assert_same_ids, clip_tokenizer, reference, tiny_tokenizer, write_folder

START, END = "<|startoftext|>", "<|endoftext|>"
FLAGS = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def dump(path: Path, record: Any) -> None:
    path.write_text(json.dumps(record), encoding="utf-8")


def bare(folder: Path) -> None:
    """vocab.json and merges.txt, nothing else."""
    files = tiny_tokenizer().to_files()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text(files[name], encoding="utf-8")


def sd1(folder: Path) -> None:
    """As in SD 1.5's folder: start, end and unknown with flags, pad as a plain string."""
    bare(folder)
    start, end = ({"content": content, **FLAGS} for content in (START, END))
    roles = {"bos_token": start, "eos_token": end, "pad_token": END, "unk_token": end}
    dump(folder / "special_tokens_map.json", roles)
    typed = {
        key: {"__type": "AddedToken", **value} for key, value in roles.items() if isinstance(value, dict)
    }
    dump(folder / "tokenizer_config.json", {**roles, **typed, "model_max_length": 77})


def sd2(folder: Path) -> None:
    """As in SD 2's folder: padded with !, which is thereby a special token."""
    sd1(folder)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        record = json.loads((folder / name).read_text())
        dump(folder / name, record | {"pad_token": "!"})


def transformers_5(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json alone."""
    source = folder / "source"
    source.mkdir()
    sd1(source)
    reference(source).save_pretrained(folder)
    for path in source.iterdir():
        path.unlink()
    source.rmdir()


def old_merges(folder: Path) -> None:
    """A tokenizer.json of the time when a merge was one string."""
    transformers_5(folder)
    record = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    record["model"]["merges"] = [" ".join(merge) for merge in record["model"]["merges"]]
    dump(folder / "tokenizer.json", record)


def transformers_4(folder: Path) -> None:
    """Flags in added_tokens_decoder; nothing else counts then."""
    sd1(folder)
    size = tiny_tokenizer().size
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = [{"content": text, "special": True, **FLAGS} for text in (START, END)]
    decoder = {str(size - 2): tokens[0], str(size - 1): {**tokens[1], "rstrip": True}}
    dump(folder / "tokenizer_config.json", {**config, "added_tokens_decoder": decoder, "eos_token": END})
    dump(folder / "special_tokens_map.json", {"pad_token": "!"})


def with_a_new_word(folder: Path) -> None:
    """After textual inversion: a token more than the vocabulary has."""
    bare(folder)
    dump(folder / "added_tokens.json", {"<sks>": tiny_tokenizer().size})


def with_a_new_special_word(folder: Path) -> None:
    """The same, told to be special: found only as typed."""
    with_a_new_word(folder)
    dump(folder / "tokenizer_config.json", {"additional_special_tokens": ["<sks>"]})


def with_a_word_told_too_late(folder: Path) -> None:
    """The same in the other file, where the reference does not look."""
    with_a_new_word(folder)
    dump(folder / "special_tokens_map.json", {"additional_special_tokens": ["<sks>"]})


FOLDERS = [
    bare, sd1, sd2, transformers_5, old_merges, transformers_4, with_a_new_word, with_a_new_special_word,
    with_a_word_told_too_late,
]  # fmt: skip
TRAPS = [
    "A DOG! <SKS> <sks>dog",
    "<|ENDOFTEXT|>  a<|StartOfText|>!",
    "a <|endoftext|>  dog<|startoftext|> !!",
]


@pytest.mark.parametrize("write", FOLDERS)
def test_a_folder_gives_the_references_ids(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    tokenizer = Tokenizer.from_path(tmp_path)
    assert_same_ids(tokenizer, tmp_path, [*TRAPS, *random_prompts(5, 500)])
    clip = reference(tmp_path)
    assert tokenizer.size == len(clip)
    assert tokenizer.pad == clip.pad_token_id


@pytest.mark.parametrize("write", FOLDERS)
def test_the_folder_we_write_gives_the_same_ids(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    tokenizer = Tokenizer.from_path(tmp_path)
    written = write_folder(tmp_path / "written", tokenizer)
    assert Tokenizer.from_path(written).vocabulary == tokenizer.vocabulary
    assert_same_ids(tokenizer, written, [*TRAPS, *random_prompts(6, 500)])
    clip = reference(written)
    assert (clip.pad_token_id, clip.model_max_length) == (tokenizer.pad, 77)


def test_clips_own_folder_has_the_published_files(tmp_path: Path) -> None:
    files = clip_tokenizer().to_files()
    assert sorted(files) == ["merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"]
    assert files["merges.txt"].startswith("#version: 0.2\ni n\nt h\na n\n")
    assert files["merges.txt"].count("\n") == 48_895
    vocabulary = json.loads(files["vocab.json"])
    assert [vocabulary[piece] for piece in ("!", "!</w>", "in", "jekyll</w>", START, END)] == [
        0,
        256,
        512,
        49405,
        49406,
        49407,
    ]
    assert (
        Tokenizer.from_path(write_folder(tmp_path, clip_tokenizer())).vocabulary
        == clip_tokenizer().vocabulary
    )


def test_each_of_a_folders_files_and_the_folder_around_it_mean_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    sd2(folder)
    vocabulary = Tokenizer.from_path(folder).vocabulary
    for path in (tmp_path, folder / "vocab.json", folder / "merges.txt", folder / "tokenizer_config.json"):
        assert Tokenizer.from_path(path).vocabulary == vocabulary
    assert Tokenizer.from_path(os.fspath(folder)).vocabulary == vocabulary


def test_a_tokenizer_json_may_have_any_name(tmp_path: Path) -> None:
    transformers_5(tmp_path)
    alone = tmp_path / "elsewhere" / "clip.json"
    alone.parent.mkdir()
    (tmp_path / "tokenizer.json").rename(alone)
    tokenizer = Tokenizer.from_path(alone)
    assert tokenizer.encode("A dog").ids == tiny_tokenizer().encode("A dog").ids
    assert tokenizer.pad == tokenizer.end


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_merge_table_alone_is_enough(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_bytes(pack(tiny_tokenizer().to_files()["merges.txt"].replace("\n", "\r\n").encode()))
    assert Tokenizer.from_path(path).vocabulary == tiny_tokenizer().vocabulary


def test_the_length_is_the_folders(tmp_path: Path) -> None:
    vocabulary = tiny_tokenizer().vocabulary
    short = Tokenizer.from_merges(vocabulary.merges, 32)
    assert Tokenizer.from_path(write_folder(tmp_path, short)).length == 32
    dump(tmp_path / "tokenizer_config.json", {"model_max_length": 10**30})  # how transformers writes "none"
    assert Tokenizer.from_path(tmp_path).length == 77


def files(**contents: str | bytes) -> Callable[[Path], Path]:
    """A folder of these files; the dot of a name is written as an underscore."""

    def write(folder: Path) -> Path:
        for name, content in contents.items():
            stem, _, suffix = name.rpartition("_")
            path = folder / f"{stem}.{suffix}"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return write


SOUND = {
    name.replace(".", "_"): text
    for name, text in Tokenizer.from_merges([("a", "b")]).to_files().items()
    if name in ("vocab.json", "merges.txt")
}


def spoiled(**contents: str | bytes) -> Callable[[Path], Path]:
    return files(**{**SOUND, **contents})


def vocabulary(old: str, new: str) -> Callable[[Path], Path]:
    assert old in SOUND["vocab_json"]
    return spoiled(vocab_json=SOUND["vocab_json"].replace(old, new, 1))


def table(**model: Any) -> Callable[[Path], Path]:
    usual = {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {}, "merges": []}
    return files(tokenizer_json=json.dumps({"model": usual | model}))


GPT2 = files(vocab_json='{"a": 0, "Ġ": 1, "Ġa": 2}', merges_txt="#version: 0.2\nĠ a\n")
BROKEN = {
    "nothing there": (lambda folder: folder / "absent", "there is no tokenizer at"),
    "a null in the name": (lambda folder: Path("a\0b"), r"a\\x00b"),
    "a name too long": (lambda folder: folder / ("a" * 5000), "File name too long"),
    "an unknown user": (lambda folder: Path("~nobody-of-that-name/x"), "home directory"),
    "not a file": (lambda folder: Path(os.devnull), "there is no tokenizer at"),
    "an empty folder": (files(), "holds no tokenizer"),
    "no merges": (files(vocab_json=SOUND["vocab_json"]), "holds no tokenizer"),
    "T5's": (files(spiece_model=b"\n\x0e\n\x05<pad>"), "T5's kind"),
    "Llama's": (files(tokenizer_model=b"\n\x0e\n\x05<unk>"), "Llama's kind"),
    "BERT's": (files(vocab_txt="[PAD]\n[unused0]\n"), "BERT's kind"),
    "GPT-2's": (GPT2, "GPT-2's kind"),
    "T5's tokenizer.json": (table(type="Unigram", vocab=[["a", -1.0]]), "T5's kind"),
    "BERT's tokenizer.json": (table(type="WordPiece"), "BERT's kind"),
    "GPT-2's tokenizer.json": (table(end_of_word_suffix=None), "GPT-2's kind"),
    "another tokenizer.json": (table(type="New\x1b[2J"), r"New\\x1b"),
    "no special tokens": (files(vocab_json='{"a": 0, "a</w>": 1}', merges_txt=""), "the special token"),
    "a Git LFS pointer": (spoiled(vocab_json="version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "a web page": (files(tokenizer_json="<!DOCTYPE html>"), "a web page"),
    "a zip": (spoiled(merges_txt=b"PK\x03\x04"), "a zip file"),
    "half a JSON": (files(tokenizer_json='{"model": '), "is broken"),
    "a list": (files(tokenizer_json="[]"), "is broken"),
    "no model": (files(tokenizer_json="{}"), "is broken"),
    "a nest of lists": (files(tokenizer_json="[" * 10**6), "is broken"),
    "a number of a million digits": (files(tokenizer_json="1" * 10**6), "is broken"),
    "no UTF-8": (spoiled(vocab_json=b'{"\xff": 0}'), "is broken"),
    "a lone surrogate": (vocabulary('"!"', r'"\ud800"'), "is broken"),
    "an id of text": (vocabulary(" 5,", ' "5",'), "distinct whole numbers"),
    "an id twice": (vocabulary(" 5,", " 6,"), "distinct whole numbers"),
    "a negative id": (vocabulary(" 5,", " -5,"), "distinct whole numbers"),
    "a huge id": (vocabulary(" 5,", f" {2**40},"), "distinct whole numbers"),
    "a merge of three": (spoiled(merges_txt="a b\na b c\n"), "'a b c' is not a merge"),
    "a merge of nothing known": (spoiled(merges_txt="a b\nab b\n"), "its merge of 'ab' and 'b'"),
    "a merge of a page": (spoiled(merges_txt=f"a b\n{'a' * 5000} b\n"), "its merge of 'aaa"),
    "merges of numbers": (table(vocab={"a</w>": 0}, merges=[[1, 2]]), "is broken"),
    "half a gzip": (spoiled(merges_txt=gzip.compress(b"a b\n")[:-6]), "is broken"),
    "a damaged gzip": (spoiled(merges_txt=b"\x1f\x8b" + b"\xff" * 40), "cannot be read"),
    "a damaged stream": (spoiled(merges_txt=gzip.compress(b"a b\n")[:10] + b"\xff" * 40), "is broken"),
    "a role of a number": (spoiled(tokenizer_config_json='{"bos_token": 3}'), "is broken"),
    "two ids for a token": (spoiled(added_tokens_json='{"ab": 3}'), "'ab' has two ids"),
    "length 1": (spoiled(tokenizer_config_json='{"model_max_length": 1}'), "has no room"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_clip_tokenizer_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    write, says = BROKEN[name]
    path = write(tmp_path)
    with pytest.raises(TokenizerError, match=says) as caught:
        Tokenizer.from_path(path)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "vocab.json and merges.txt" in message  # what to do
    assert message.isprintable()


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(TokenizerError, match="Permission denied"):
        Tokenizer.from_path(path)


def test_a_packed_gigabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_bytes(gzip.compress(bytes(10**6)) * 100)
    with pytest.raises(TokenizerError, match="more than 64 MiB"):
        Tokenizer.from_path(path)
