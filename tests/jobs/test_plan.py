"""Plans as they are read: every form of line, axes, and what is refused by its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdscratch.errors import ImageError, SdscratchError, UsageError
from sdscratch.jobs.axes import expand
from sdscratch.jobs.lines import read_line
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Job, Plan

SEED = 11


def jobs(path: Path, text: str, **defaults: Any) -> list[Job]:
    path.write_text(text)
    return list(Plan(path, defaults, SEED))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a red apple", {"prompt": "a red apple"}),
        ("  a red apple  ", {"prompt": "a red apple"}),
        ("# a red apple", None),
        ("", None),
        ("a -- b --steps 3", {"prompt": "a -- b --steps 3"}),
        ('--prompt "a dog" --steps 7 --seed 3', {"prompt": "a dog", "steps": "7", "seed": "3"}),
        ("--prompt a\\ dog --negative_prompt 'a cat'", {"prompt": "a dog", "negative_prompt": "a cat"}),
        ("--prompt a --seed -1 --n_iter 2 --batch_size 3", {"prompt": "a", "batch_count": 6}),
        ('--prompt a --sampler_name "Euler a" --outpath_samples x', {"prompt": "a", "sampler": "Euler a"}),
        (
            "a dog, best --n bad, worse --w 64 --h 96 --d 7 --s 5 --l 4.5 --t 0.5",
            {
                "prompt": "a dog, best",
                "negative_prompt": "bad, worse",
                "width": "64",
                "height": "96",
                "seed": "7",
                "steps": "5",
                "cfg_scale": "4.5",
                "strength": "0.5",
            },
        ),
    ],
)
def test_lines_are_told_apart(line: str, said: dict[str, str] | None) -> None:
    assert read_line(line, "here") == said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--prompt a --frobnicate 3", "line 2 says --frobnicate, which means nothing"),
        ("--prompt a --steps", "line 2 says --steps without a value"),
        ('--prompt "a', "line 2 cannot be taken apart"),
        ("a dog --am 0.5", "line 2 says --am, which means nothing"),
        ("a dog --s five", "line 2: steps is 'five', but must be a whole number"),
        ("--prompt a --steps 0", "line 2: steps is 0"),
        ("a dog --w 65", "line 2: the width is 65"),
    ],
)
def test_what_a_line_cannot_mean_is_refused_by_its_place(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        jobs(tmp_path / "plan.txt", f"a cat\n{line}\n")


def test_json_and_csv_name_any_option(tmp_path: Path) -> None:
    lines = [{"prompt": "a", "cfg-scale": 3, "lora": ["x:0.5"]}, {"prompt": "b", "size": "64x72", "seed": 5}]
    first, second = jobs(tmp_path / "plan.jsonl", "\n\n".join(map(json.dumps, lines)), steps=4, width=128)
    assert (first.options.cfg_scale, first.source.lora, first.options.width) == (3.0, ("x:0.5",), 128)
    assert (second.options.width, second.options.height, second.options.seed) == (64, 72, 5)
    table = 'prompt,steps,negative_prompt\n"a, b",3,\nc,,"d\ne"\n'
    first, second = jobs(tmp_path / "plan.csv", table, steps=9)
    assert (first.options.prompt, first.options.steps, first.options.negative_prompt) == ("a, b", 3, "")
    assert (second.options.prompt, second.options.steps, second.options.negative_prompt) == ("c", 9, "d\ne")


@pytest.mark.parametrize(
    ("name", "text", "kind", "message"),
    [
        ("plan.jsonl", '{"prompt": "a"}\n{', ImageError, "line 2 is no JSON"),
        ("plan.jsonl", "[1]", ImageError, "line 1 is no object"),
        ("plan.jsonl", '{"promt": "a"}', UsageError, "line 1 has a key 'promt', .* nearest is 'prompt'"),
        ("plan.jsonl", '{"prompt": "a", "steps": "x"}', UsageError, "steps is 'x'"),
        ("plan.jsonl", '{"prompt": "a", "strength": 0.5}', UsageError, "no init_img"),
        ("plan.jsonl", '{"steps": 3}', UsageError, "no prompt"),
        ("plan.csv", "prompt\na,b\n", UsageError, "line 2 has more columns"),
        ("plan.toml", "prompt = ", ImageError, "is no TOML"),
        ("plan.toml", 'prompt = "a"\n[axes]\nseed = "1-4"', UsageError, "a range says FROM..TO"),
        ("plan.toml", 'prompt = "a"\n[axes]\nseed = "1..4/0.5"', UsageError, "whole numbers"),
        ("plan.toml", 'prompt = "a"\n[axes]\nsteps = "4..1"', UsageError, "holds no value"),
        ("plan.toml", '[zip]\nprompt = ["a", "b"]\nseed = [1]', UsageError, "different lengths"),
        ("plan.toml", '[axes]\nprompt = {lines = "absent.txt"}', ImageError, "absent.txt cannot be read"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    tmp_path: Path, name: str, text: str, kind: type[SdscratchError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        jobs(tmp_path / name, text)


def test_axes_are_a_product_in_the_order_written_and_zips_go_side_by_side(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a dog\n# no\n\na cat\n")
    record = {
        "steps": 3,
        "axes": {"cfg_scale": [5, 7], "prompt": {"lines": str(prompts)}},
        "zip": {"width": [64, 72], "seed": "1..2"},
    }
    made = [tuple(line.values()) for line in expand(record, "plan")]
    assert made == [
        (3, scale, prompt, width, seed)
        for scale in (5, 7)
        for prompt in ("a dog", "a cat")
        for width, seed in ((64, 1), (72, 2))
    ]


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("seed", "1..4", [1, 2, 3, 4]),
        ("steps", "10..30/10", [10, 20, 30]),
        ("steps", "10..35/10", [10, 20, 30]),
        ("strength", "0.4..1.0/4 points", [0.4, 0.6, 0.8, 1.0]),
        ("cfg_scale", "5..6/0.25", [5.0, 5.25, 5.5, 5.75, 6.0]),
        ("strength", "0.5..0.5/1 point", [0.5]),
        ("prompt", "1..4", ["1..4"]),
    ],
)
def test_ranges(name: str, text: str, values: list[Any]) -> None:
    assert [line[name] for line in expand({"axes": {name: text}}, "plan")] == pytest.approx(values)


def test_tables_of_jobs_have_axes_of_their_own() -> None:
    record = {"axes": {"seed": [1, 2]}, "jobs": [{"prompt": "a"}, {"prompt": "b", "axes": {"seed": [9]}}]}
    assert list(expand(record, "plan")) == [
        {"prompt": "a", "seed": 1},
        {"prompt": "a", "seed": 2},
        {"prompt": "b", "seed": 9},
    ]


def test_seeds_that_nobody_asks_for_are_others_for_each_line_and_stay(tmp_path: Path) -> None:
    text = "\n".join("abcdefgh")
    seeds = [job.options.seed for job in jobs(tmp_path / "plan.txt", text)]
    assert len(set(seeds)) == 8
    assert seeds == [job.options.seed for job in jobs(tmp_path / "plan.txt", text)]
    assert all(0 <= seed < 2**32 for seed in seeds)


VALUES = {
    "n": 7, "job": 3, "seed": 12, "steps": 4, "width": 64, "height": 72, "cfg_scale": 7.5, "strength": 0.75,
    "sampler": "dpm++2m", "clip_skip": 0, "model": "default", "negative_prompt": "",
    "prompt": 'a/b\\c: "d" <e>|f\n g?*',
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{n:05}-{seed}.png", "00007-12.png"),
        ("{prompt:9}.webp", "a_b_c_ _d.webp"),
        ("{sampler} {cfg_scale}.JPG", "dpm++2m 7.5.JPG"),
        ("{negative_prompt}.png", "picture.png"),
    ],
)
def test_names_are_safe_for_every_file_system(template: str, name: str) -> None:
    assert Template(template).name(VALUES) == name


@pytest.mark.parametrize("prompt", ["con", "..", " . ", "x" * 5000, "größe 🐕" * 60, "\x00\x1b[31m", "-rf"])
def test_no_prompt_makes_a_name_that_cannot_be(prompt: str, tmp_path: Path) -> None:
    name = Template("{prompt}.png").name({**VALUES, "prompt": prompt})
    assert len(name.encode()) <= 200
    assert Path(name).name == name
    assert not name.lower().startswith("con.")
    (tmp_path / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("template", ["{frob}.png", "{n", "{n}.txt", "a/{n}.png", "{n:05}"])
def test_templates_that_make_no_sense_are_refused(template: str) -> None:
    with pytest.raises(UsageError, match="the name"):
        Template(template)
