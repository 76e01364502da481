"""`run` as a script sees it: pipes, wildcards, what is printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdscratch.images import parse_infotext, read_records
from sdscratch.jobs import wildcards
from support.cli import Result, sdscratch

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs; nothing of the user's is read or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / ".data"))
    monkeypatch.delenv("SDSCRATCH_MODEL", raising=False)
    return tmp_path


@pytest.fixture
def draw(tiny_model: Path) -> Run:
    """64×64 pixels in one step."""

    def run(command: str, what: object, *arguments: object, **streams: object) -> Result:
        small = ["--width", 64, "--height", 64, "--steps", 1, "--device", "cpu", "--dtype", "float32"]
        return sdscratch(command, what, "-m", tiny_model, *small, *arguments, **streams)  # type: ignore[arg-type]

    return run


def test_a_pipe_is_answered_line_by_line_and_a_bad_line_is_told_of(draw: Run) -> None:
    lines = [
        b"a dog",
        b"# nothing",
        b"",
        b"--prompt a --frobnicate 3",
        b'{"prompt": "a cat", "seed": 7, "batch_count": 2}',
        b"\xff",
        b'{"prompt": ',
        b"a red apple --d 9",
        b"a dog --s 0",
    ]
    result = draw("run", "-", "--json", "-o", "out/", stdin=b"\n".join(lines))
    told = [json.loads(line) for line in result.lines]
    assert [(each["job"], each["prompt"]) for each in told] == [
        (1, "a dog"),
        (3, "a cat"),
        (3, "a cat"),
        (6, "a red apple"),
    ]
    assert [each["seed"] for each in told[1:]] == [7, 8, 9]
    for each, number in zip(told, (1, 2, 3, 4), strict=True):
        assert each["path"] == f"out/{number:05}-{each['seed']}.png"
        assert Path(each["path"]).is_file()
    assert result.code == 1
    for number, word in ((4, "--frobnicate"), (6, "not UTF-8"), (7, "no JSON"), (9, "steps is 0")):
        assert any(f"line {number}" in line and word in line for line in result.stderr.splitlines()), number
    assert "4 of 8 pictures failed" in result.stderr


def test_the_next_pipe_goes_on_with_the_numbers_and_overwrites_nothing(draw: Run) -> None:
    first = draw("run", "-", "--seed", 5, stdin=b"a dog\na cat").lines
    assert first == ["outputs/stdin/00001-5.png", "outputs/stdin/00002-5.png"]
    before = Path(first[0]).read_bytes()
    assert draw("run", "-", "--seed", 5, stdin=b"a dog").lines == ["outputs/stdin/00003-5.png"]
    assert Path(first[0]).read_bytes() == before == Path("outputs/stdin/00003-5.png").read_bytes()
    refused = draw("run", "-", "--seed", 5, "--name", "{seed}.png", stdin=b"a dog\na cat")
    assert refused.lines == ["outputs/stdin/5.png"]
    assert "exists already" in refused.stderr
    assert refused.code == 1
    assert draw("run", "-", stdin=b"").code == 0
    assert draw("run", "-", "--dry-run").code == draw("run", "-", "--shard", "1/2").code == 2


def test_wildcards_are_expanded_in_plans_and_where_they_are_asked_for(draw: Run, folder: Path) -> None:
    (folder / "wildcards").mkdir()
    (folder / "wildcards" / "animal.txt").write_text("dog\ncat\n{red|blue} bird\n")
    (folder / "plan.txt").write_text("a {big|small} __animal__ --d 3 --n {dim|dull}\n")
    (path,) = draw("run", "plan.txt").lines
    record = read_records(Path(path)).record
    assert record is not None
    assert record.template is not None
    assert record.template.prompt == "a {big|small} __animal__"
    assert record.template.negative_prompt == "{dim|dull}"
    assert record.template.seed == 3
    assert record.options.prompt.split()[1] in ("big", "small")
    assert record.options.negative_prompt in ("dim", "dull")
    said = parse_infotext(record.infotext())
    assert said.prompt == record.options.prompt
    assert said.parameters["Template"] == record.template.prompt
    assert said.parameters["Negative Template"] == "{dim|dull}"
    # the same by hand: the same text, and but for the template the same picture
    options = ["--seed", 3, "-n", "{dim|dull}", "--wildcards", "-o", "one.png"]
    assert draw("txt2img", "a {big|small} __animal__", *options).code == 0
    assert Path("one.png").read_bytes() == Path(path).read_bytes()
    literal = draw("txt2img", "a {big|small} __animal__", "--seed", 3, "-o", "two.png")
    assert literal.code == 0
    assert getattr(read_records(Path("two.png")).record, "template", "") is None


def test_every_picture_has_its_own_choices_by_its_own_seed(draw: Run) -> None:
    template = "{a|b|c|d|e|f|g|h} {1|2|3|4|5|6}"
    told = draw("txt2img", template, "--wildcards", "--seed", 1, "-b", 4, "--json").lines
    texts = [json.loads(line)["prompt"] for line in told]
    assert len(set(texts)) > 1
    alone = draw("txt2img", template, "--wildcards", "--seed", 3, "--json").lines
    assert json.loads(alone[0])["prompt"] == texts[2]
    given = draw("txt2img", template, "--wildcards", "--seed", 99, "--wildcard-seed", 1, "-b", 4, "--json")
    assert [json.loads(line)["prompt"] for line in given.lines] == texts


def test_combinations_are_all_drawn_and_counted_before(
    draw: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--wildcards", "--combinations", "--seed", 1, "--json")
    told = [json.loads(line) for line in draw("txt2img", "{a|b} {c|d}", *asked).lines]
    assert [each["prompt"] for each in told] == ["a c", "a d", "b c", "b d"]
    assert {each["seed"] for each in told} == {1}
    (folder / "plan.jsonl").write_text(json.dumps({"prompt": "{a|b} {c|d}", "combinations": True}))
    assert "4 pictures" in draw("run", "plan.jsonl", "--dry-run").stderr
    monkeypatch.setattr(wildcards, "MOST_COMBINATIONS", 100)
    many = "".join(f"{{{n}|x|y|z}}" for n in range(20))
    assert "more than 100 combinations" in draw("txt2img", many, *asked).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a {b", "--wildcards"), "no } closes"),
        (("a __absent__", "--wildcards"), "no list for the wildcard __absent__"),
        (("a __../../etc/passwd__", "--wildcards"), "has .. in it"),
        (("{a|b}", "--wildcard-seed", 3), "add --wildcards"),
        (("{a|b}", "--wildcards", "--wildcard-folder", "absent"), "absent is no folder"),
        (("{a|<lora:absent:1>}{<lora:absent:1>|a}", "--wildcards", "--combinations"), "absent"),
    ],
)
def test_wildcards_that_make_no_sense_are_refused_before_work(
    draw: Run, folder: Path, arguments: tuple[object, ...], message: str
) -> None:
    result = draw("txt2img", *arguments, "-o", "x.png")
    assert message in result.stderr
    assert result.code in (2, 3)
    assert not list(folder.glob("*.png"))


def test_a_terminal_has_a_bar_for_the_run_and_one_for_the_picture(draw: Run, folder: Path) -> None:
    (folder / "plan.txt").write_text("a dog\na cat\n")
    result = draw("run", "plan.txt", "--seed", 1, terminals=("stderr",))
    assert result.code == 0
    frames = result.stderr.split("\x1b[2K\x1b[1A\x1b[2K")  # two lines are drawn anew
    assert any("pictures" in frame and "denoising" in frame and "left" in frame for frame in frames)
    assert "2/2: seed 1" in result.stderr


def test_a_log_has_a_line_a_picture_with_an_estimate(draw: Run, folder: Path) -> None:
    (folder / "plan.txt").write_text("a dog\na cat\nanother dog\n")
    result = draw("run", "plan.txt", "--seed", 1, "--grid")
    told = result.stderr.splitlines()
    assert [line.split(":")[0] for line in told if line[:1].isdigit()] == ["1/3", "2/3", "3/3"]
    assert "left" in told[-5]
    assert told[-1] == "contact sheet: outputs/plan/grid.png"
    assert not any(line.startswith(("encoding", "denoising", "decoding")) for line in told)


def test_a_dry_run_says_about_how_long_the_run_takes(draw: Run, folder: Path) -> None:
    lines = [{"prompt": f"a dog {n}", "steps": 3, "size": "64x64"} for n in range(6)]
    (folder / "plan.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dry = draw("run", "plan.jsonl", "--dry-run")
    assert len(dry.lines) == 6
    assert "6 jobs, 6 pictures, 18 steps" in dry.stderr
    assert not Path("outputs").exists()
    told = re.search(r"about (\d+) s on this machine", dry.stderr)
    assert told is not None
    result = draw("run", "plan.jsonl")
    took = re.search(r"pictures: ([\d.]+) s", result.stderr)
    assert took is not None
    assert float(took[1]) / 4 - 1 <= int(told[1]) <= float(took[1]) * 4 + 1
    again = draw("run", "plan.jsonl", "--dry-run")
    assert "6 of them are drawn already" in again.stderr
    assert "on this machine" not in again.stderr


def test_pictures_without_a_record_have_one_beside_them_where_that_is_asked_for(
    draw: Run, folder: Path
) -> None:
    """And a run that lost its journal knows them again all the same."""
    Path("plan.jsonl").write_text('{"prompt": "a dog", "seed": 3}\n{"prompt": "a cat", "size": "72x64"}\n')
    words = ("run", "plan.jsonl", "-o", "out", "-q", "--strip", "--sidecar")
    first, second = draw(*words).lines
    for path, size in ((first, "64x64"), (second, "72x64")):
        alone = Path(path).with_suffix(".json")
        record = read_records(Path(path)).record
        assert record is not None
        assert f"{record.options.width}x{record.options.height}" == size
        alone.rename("aside")
        assert read_records(Path(path)).tool is None  # nothing is in it
        Path("aside").rename(alone)
    before = {path: path.read_bytes() for path in Path("out").iterdir() if "journal" not in path.name}
    Path("out/journal.jsonl").unlink()
    Path(first).with_suffix(".json").unlink()  # the power went between the two
    assert draw(*words).lines == [first, second]
    assert before == {path: path.read_bytes() for path in Path("out").iterdir() if "journal" not in path.name}


def test_the_size_of_all_lines_may_be_said_at_once_and_pictures_are_shown(
    tiny_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("TMUX", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID"):
        monkeypatch.delenv(name, raising=False)
    Path("plan.txt").write_text("a dog --s 1\na cat --s 1 --w 64\n")
    words = ("run", "plan.txt", "-m", tiny_model, "--size", "72x64", "-q", "--show", "--preview", "now.png")
    done = sdscratch(*words, "--device", "cpu", "--dtype", "float32", terminals=["stderr"])
    assert done.code == 0, done.stderr
    sizes = [(o.width, o.height) for path in done.lines if (o := read_records(Path(path)).record.options)]  # type: ignore[union-attr]
    assert sizes[0] == (72, 64)
    assert sizes[1][0] == 64
    assert done.stderr.count("\u2580") >= 72 * 32
    with Image.open("now.png") as sketch:
        assert sketch.size[0] == 64
    assert sdscratch(*words, "--width", 64).code == 2
    assert sdscratch(*words[:-1], "now.bmp").code == 2
