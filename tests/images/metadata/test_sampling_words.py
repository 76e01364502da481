"""What the infotext says of sampling, guidance and noise, and how it is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdscratch.addons.requests import LoraRequest, take_loras
from sdscratch.images import LoraRecord, Record, parse_infotext
from sdscratch.images.metadata.sampling_words import read_sampling
from sdscratch.options import GenerateOptions
from support.pictures import record

# What is off unless asked for, and what the infotext says of it.
TOLD: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "emphasis": (
        {"emphasis": "no-norm", "prompt": "a (red:1.2) dog", "prompt_syntax": "a1111"},
        {"Emphasis": "No norm"},
    ),
    "variation_strength": (
        {"variation_seed": 77, "variation_strength": 0.25},
        {"Variation seed": "77", "Variation seed strength": "0.25"},
    ),
    "seed_resize": ({"seed_resize": "512x640"}, {"Seed resize from": "512x640"}),
    "ensd": ({"ensd": 31337, "sampler": "euler_a"}, {"ENSD": "31337"}),
    "sigmas": ({"sigmas": "14.6,3.0,0.0"}, {"Sigmas": "14.6,3.0,0.0"}),
    "prediction": ({"prediction": "v"}, {"Prediction": "v"}),
    "zero_snr": ({"zero_snr": True}, {"Noise Schedule": "Zero Terminal SNR"}),
    "rescale_cfg": ({"rescale_cfg": 0.7}, {"CFG rescale": "0.7"}),
    "dynamic_threshold": (
        {"dynamic_threshold": "7,99.5"},
        {"Dynamic thresholding enabled": "True", "Mimic scale": "7", "Threshold percentile": "99.5"},
    ),
    "apg": ({"apg": "0,-0.5,15"}, {"APG": "0,-0.5,15"}),
    "pag_scale": ({"pag_scale": 3.0}, {"PAG Scale": "3"}),
    "freeu": ({"freeu": "1.5,1.6,0.9,0.2"}, {"FreeU": "1.5,1.6,0.9,0.2"}),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_is_done_to_sampling_is_told_and_comes_back(name: str) -> None:
    asked, told = TOLD[name]
    made = record(**asked)
    assert name in json.loads(made.to_json())["options"]
    assert Record.from_json(made.to_json()) == made
    parameters = parse_infotext(made.infotext()).parameters
    assert {key: parameters.get(key) for key in told} == told
    assert not parse_infotext(record().infotext()).parameters.keys() & told.keys()
    read = {name: value for found in read_sampling(parameters).values() for name, value in found.items()}
    assert GenerateOptions(**read).sigmas == asked.get("sigmas")
    assert read == {name: asked[name] for name in read}
    assert read_sampling(parameters).keys() == told.keys()


def test_a_number_that_samplers_do_not_draw_by_is_not_told() -> None:
    for sampler in ("dpm++2m", "dpm++sde"):  # no noise; noise of a Brownian path, which has its own seed
        assert "ENSD" not in record(ensd=31337, sampler=sampler).infotext()


def test_emphasis_is_told_where_something_is_emphasized() -> None:
    assert "Emphasis" not in record(emphasis="ignore", prompt="a red dog").infotext()


def test_all_that_was_asked_of_a_lora_stands_in_its_tag() -> None:
    blocks = tuple(index / 4 for index in range(26))
    given = LoraRecord("ink", 0.7, "ab" * 5, False, 0.5, blocks, 3, 12)
    prompt = parse_infotext(record(prompt="a dog", loras=(given,)).infotext()).prompt
    text, (asked,) = take_loras(prompt)
    assert text == "a dog "
    assert asked == LoraRequest("ink", 0.7, 0.5, blocks, 3, 12)


@pytest.mark.parametrize(
    "said",
    [
        {"ENSD": "many"}, {"Variation seed": "x"}, {"Seed resize from": "0x0"}, {"Emphasis": "Strong"},
        {"Noise Schedule": "cosine"}, {"Sigmas": "1,2"}, {"CFG rescale": "2"}, {"PAG Scale": "nan"},
        {"APG": "x"}, {"FreeU": "1"}, {"Prediction": "x0"}, {"Mimic scale": "-3"},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_not_read(said: dict[str, str]) -> None:
    assert read_sampling(said) == {}


def test_what_the_web_uis_say_of_it_is_read() -> None:
    said = {
        "Variation seed": "3", "Variation seed strength": "0.2", "Seed resize from": "512x768",
        "ENSD": "31337", "Emphasis": "No norm", "Noise Schedule": "Default", "Mimic scale": "7",
        "Threshold percentile": "99", "Dynamic thresholding enabled": "True", "Steps": "20",
    }  # fmt: skip
    read = read_sampling(said)
    assert read["Dynamic thresholding enabled"] == {"dynamic_threshold": "7,99"}
    assert read["Noise Schedule"] == {}
    assert (read["Seed resize from"], read["ENSD"]) == ({"seed_resize": "512x768"}, {"ensd": 31337})
    assert "Steps" not in read
