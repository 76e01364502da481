from __future__ import annotations

import json
import re
import time
from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdscratch.errors import ImageError
from sdscratch.images import AddonRecord, Infotext, LoraRecord, Record, parse_infotext
from sdscratch.images.metadata.infotext import pairs
from sdscratch.options import ResolvedOptions
from sdscratch.version import __version__
from support.pictures import record

# Any text at all, halves of surrogate pairs and NUL included, mixed with what an infotext is made of.
PARAMETERS = "Steps: 3, Sampler: x, Seed: 1"
GRAMMAR = [PARAMETERS, "\n", "Negative prompt: ", '"', "\\", ", ", ": ", "\0", "\r", "\ud800"]
HOSTILE = st.lists(st.text(st.characters(), max_size=20) | st.sampled_from(GRAMMAR), max_size=8).map("".join)
PLAIN = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=60)

EXAMPLE = (
    "a red apple\nNegative prompt: blurry, dark\n"
    "Steps: 30, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.5, Seed: 7, Size: 512x512, "
    "Model hash: 6ce0161689, Model: v1-5, Denoising strength: 0.6, Clip skip: 2, RNG: CPU, "
)
ENDING = {"RNG": "CPU", "Version": f"sdscratch {__version__}", "Hashes": '{"model": "6ce0161689"}'}


def ending(made: Record) -> str:
    """What every infotext ends in."""
    return f"Record hash: {made.hash()}, Version: {ENDING['Version']}, Hashes: {ENDING['Hashes']}"


@given(HOSTILE, HOSTILE, HOSTILE, st.integers(0, 2**63 - 1), st.floats(0, 1000))
def test_the_record_comes_back_whatever_the_prompt_is(
    prompt: str, negative: str, model: str, seed: int, scale: float
) -> None:
    made = record(prompt=prompt, negative_prompt=negative, model=model, seed=seed, cfg_scale=scale)
    text = made.to_json()
    assert text.isascii()
    assert text.isprintable()
    assert Record.from_json(text) == made


def test_the_record_of_img2img_names_init_picture_and_fit() -> None:
    made = record(mode="img2img", fit="cover", init_hash="ab" * 32, scheduler="karras")
    assert Record.from_json(made.to_json()) == made
    values = json.loads(made.to_json())
    assert (values["fit"], values["init_hash"]) == ("cover", "ab" * 32)
    assert "fit" not in json.loads(record().to_json())


LORAS = (
    LoraRecord("ink", 0.7, "ab" * 5, tagged=False),
    LoraRecord("a, b", -1.0, "cd" * 5, tagged=True, autov3="0123456789ab"),
)


def test_the_record_names_the_loras() -> None:
    made = record(prompt="a dog<lora:a, b:-1>", loras=LORAS)
    assert Record.from_json(made.to_json()) == made
    assert "loras" not in json.loads(record().to_json())


def test_the_infotext_has_a_tag_and_a_hash_for_every_lora() -> None:
    made = record(prompt="a dog<lora:a, b:-1>", loras=LORAS)
    text = parse_infotext(made.infotext())
    assert text.prompt == "a dog<lora:a, b:-1> <lora:ink:0.7>"
    assert text.parameters["Lora hashes"] == "ink: ababababab, a, b: 0123456789ab"
    assert "Lora" not in record().infotext()


def test_hashes_are_what_civitai_finds_files_by() -> None:
    embeddings = (AddonRecord("bad: {hand}", "0123456789ab"),)
    made = record(loras=LORAS, embeddings=embeddings, vae=AddonRecord("mse", "735e4c3a44"))
    text = made.infotext()
    # CivitAI's own expression: automatic.metadata.ts
    found = re.search(r", Hashes:\s*({[^}]+})", text)
    assert found is not None
    assert json.loads(found[1]) == {
        "model": "6ce0161689", "vae": "735e4c3a44", "lora:ink": "ababababab", "lora:a, b": "cdcdcdcdcd",
        "embed:bad: {hand}": "0123456789",
    }  # fmt: skip
    read = parse_infotext(text).parameters
    assert json.loads(read["Hashes"]) == json.loads(found[1])
    assert (read["TI hashes"], read["VAE"], read["VAE hash"]) == (
        "bad: {hand}: 0123456789ab",
        "mse",
        "735e4c3a44",
    )
    # A1111, whose values end at a comma, finds no key in it that is none
    own = {key for key, _ in pairs(text.rpartition("\n")[2])}
    assert own == read.keys()


def test_the_record_says_what_add_ons_are_in_both_of_civitais_hashes() -> None:
    made = record(loras=LORAS, embeddings=(AddonRecord("a", "0123456789ab", "cdefcdefcdef"),), threads=2)
    values = json.loads(made.to_json())
    assert [lora.get("autov3") for lora in values["loras"]] == [None, "0123456789ab"]
    assert values["embeddings"] == [{"name": "a", "hash": "0123456789ab", "autov3": "cdefcdefcdef"}]
    assert values["threads"] == 2
    assert Record.from_json(made.to_json()) == made


def test_every_record_has_a_hash_of_its_own() -> None:
    made = [record(), record(threads=1), record(seed=8), record(prompt="a red appl")]
    assert len({each.hash() for each in made}) == 4


ON = {"cfg_interval": "0.28:5.42", "deep_cache": 3, "tile": 512, "seamless": "x", "hires": 2.0}
ON |= {"hires_upscaler": "lanczos", "hires_strength": 0.5, "hires_steps": 5, "hires_sampler": "euler"}
ON |= {"hires_scheduler": "karras", "hires_cfg_scale": 3.0, "hires_prompt": "b", "hires_negative_prompt": "c"}
ON |= {"window": 64, "decoder": "tiny"}


def test_the_record_holds_every_option_that_does_something() -> None:
    every = {field.name for field in fields(ResolvedOptions)}
    off = {field.name for field in fields(ResolvedOptions) if field.metadata.get("off")}
    assert json.loads(record().to_json())["options"].keys() == every - off


def test_approximations_are_told_where_they_were_used_and_nowhere_else() -> None:
    made = record(**ON)
    assert Record.from_json(made.to_json()) == made
    parameters = parse_infotext(made.infotext()).parameters
    names = ["Guidance interval", "DeepCache"]
    assert [parameters[name] for name in names] == ["0.28:5.42", "3"]
    assert not json.loads(record().to_json())["options"].keys() & ON.keys()
    assert not parse_infotext(record().infotext()).parameters.keys() & set(names)


def spoilt(**changes: object) -> str:
    values = json.loads(record().to_json())
    values["options"] |= changes.pop("options", {})
    return json.dumps(values | changes)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "1", "{}", "[" * 100_000, '{"sdscratch":"0.1.0"}', spoilt(mode="txt2video"),
        spoilt(options={"steps": "30"}), spoilt(options={"steps": True}), spoilt(options={"width": 1.5}),
        spoilt(options={"prompt": None}), spoilt(options={"unknown": 1}), spoilt(unknown=1), spoilt(fit="x"),
        spoilt(options={"scheduler": 3}), spoilt(loras=3), spoilt(loras=[3]), spoilt(loras=[{"name": "a"}]),
        spoilt(loras="ab"), spoilt(loras=[{"name": "a", "weight": "1", "hash": "b", "tagged": True}]),
        spoilt(model=["v1-5"]), spoilt(model={}), spoilt(mode=[]),
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="record cannot be read"):
        Record.from_json(text)


SINCE = {"like": "sdscratch", "noise": "cpu", "prompt_syntax": "plain"}  # what pictures were before
ALWAYS_THERE = sorted(json.loads(record().to_json())["options"].keys() - SINCE)


@pytest.mark.parametrize("name", SINCE)
def test_a_record_of_before_an_option_is_read_as_what_pictures_were_then(name: str) -> None:
    values = json.loads(record().to_json())
    del values["options"][name]
    assert getattr(Record.from_json(json.dumps(values)).options, name) == SINCE[name]


@pytest.mark.parametrize("name", ALWAYS_THERE)
def test_a_record_that_lacks_an_option_is_refused(name: str) -> None:
    values = json.loads(record().to_json())
    del values["options"][name]
    with pytest.raises(ImageError, match=f"record cannot be read .*'{name}'"):
        Record.from_json(json.dumps(values))


def test_the_infotext_is_spelled_as_the_web_uis_do() -> None:
    made = record(
        mode="img2img", negative_prompt="blurry, dark", sampler="euler_a", scheduler="karras",
        strength=0.6, clip_skip=1,
    )  # fmt: skip
    assert made.infotext() == EXAMPLE + ending(made)


def test_what_does_not_apply_is_left_out_of_the_infotext() -> None:
    text = record().infotext()
    assert text == (
        "a red apple\nSteps: 30, Sampler: DDPM, CFG scale: 7.5, Seed: 7, Size: 512x512, "
        "Model hash: 6ce0161689, Model: v1-5, RNG: CPU, " + ending(record())
    )
    assert "Eta DDIM: 0.5" in record(sampler="ddim", eta=0.5).infotext()


def test_the_infotext_is_taken_apart() -> None:
    text = EXAMPLE + 'Record hash: ab12, Version: sdscratch 1, Hashes: {"model": "6ce0161689", "vae": "12"}'
    assert parse_infotext(text) == Infotext(
        "a red apple",
        "blurry, dark",
        {
            "Steps": "30", "Sampler": "Euler a", "Schedule type": "Karras", "CFG scale": "7.5", "Seed": "7",
            "Size": "512x512", "Model hash": "6ce0161689", "Model": "v1-5", "Denoising strength": "0.6",
            "Clip skip": "2", "RNG": "CPU", "Record hash": "ab12", "Version": "sdscratch 1",
            "Hashes": '{"model": "6ce0161689", "vae": "12"}',
        },
    )  # fmt: skip


@given(PLAIN, PLAIN, PLAIN.filter(bool))
@example(PARAMETERS, PARAMETERS, 'a "b", c: \\d')
@example(" leading", " x ", "  spaces  ")
@example("", "", 'x, Hashes: {"model": "no"}')
def test_the_infotext_comes_back_for_prompts_of_one_line(prompt: str, negative: str, model: str) -> None:
    made = record(prompt=prompt, negative_prompt=negative, model=model)
    if prompt.strip().startswith("Negative prompt:"):
        return
    found = parse_infotext(made.infotext())
    assert (found.prompt, found.negative_prompt) == (prompt.strip(), negative.strip())  # as A1111 reads it
    assert found.parameters["Model"] == model
    assert found.parameters["Seed"] == "7"


@given(HOSTILE, HOSTILE)
def test_the_infotext_always_ends_in_its_own_parameters(prompt: str, negative: str) -> None:
    text = record(prompt=prompt, negative_prompt=negative).infotext()
    assert "\0" not in text
    text.encode("utf-8")
    found, usual = (dict(parse_infotext(each).parameters) for each in (text, record().infotext()))
    assert len(found.pop("Record hash")) == len(usual.pop("Record hash")) == 12
    assert found == usual


def test_a_prompt_of_several_lines_stays_whole() -> None:
    found = parse_infotext(record(prompt="a\nb", negative_prompt="c\nd").infotext())
    assert (found.prompt, found.negative_prompt) == ("a\nb", "c\nd")


@pytest.mark.parametrize("last", ["a cat", "Steps: 30", "Steps: 30, Seed: 7", "10:30, 11:45, half"])
def test_a_last_line_with_fewer_than_three_parameters_is_prompt(last: str) -> None:
    assert parse_infotext(f"one\n{last}") == Infotext(f"one\n{last}", "", {})


def test_quoted_values_keep_their_commas() -> None:
    line = 'Steps: 1, Seed: 2, Lora hashes: "a: 1, b: 2", Size: 8x8, Empty: "", Odd: "x'
    assert parse_infotext(line).parameters == {
        "Steps": "1", "Seed": "2", "Lora hashes": "a: 1, b: 2", "Size": "8x8", "Empty": "", "Odd": '"x',
    }  # fmt: skip


@pytest.mark.parametrize("piece", ["a", "a ", " ", '"', 'aa: "', 'aa: "\\",', "a: b, ", "\\", ":", "aa:"])
def test_hostile_infotext_takes_linear_time(piece: str) -> None:
    start = time.perf_counter()
    parse_infotext(piece * (1_000_000 // len(piece)))
    assert time.perf_counter() - start < 10


def test_what_is_wrong_in_a_record_is_named_briefly_and_without_control_characters() -> None:
    for text in (spoilt(options={"steps": "\x1b" * 9999}), spoilt(**{"\x1b" * 9999: 1})):
        with pytest.raises(ImageError) as caught:
            Record.from_json(text)
        assert len(str(caught.value)) < 200
        assert str(caught.value).isprintable()
