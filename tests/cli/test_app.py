"""What scripts rely on: exit codes, one sentence an error, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from sdscratch.__main__ import yield_sooner
from sdscratch.cli import generate
from sdscratch.version import __version__
from support.checkpoints import ldm_tensors, self_contained, write_ldm
from support.cli import Result, sdscratch
from support.pictures import gradient, png

SMALL = ["--size", "64x64", "--steps", "2", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: among pictures that are none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / ".data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SDSCRATCH_MODEL", raising=False)
    gradient(64, 64).save("init.png")
    gradient(64, 40).save("low.png")
    Path("truncated.png").write_bytes(Path("init.png").read_bytes()[:-100])
    Path("huge.png").write_bytes(png(60_000, 60_000, 8, 2, b"\0" * 100))
    Path("notes.txt").write_text("a dog")
    Path("taken.png").write_text("mine")
    Path("folder").mkdir()
    Path("broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    return tmp_path


def check(result: Result, code: int, said: str) -> None:
    """One sentence on stderr, nothing on stdout."""
    assert result.stderr.endswith("\n")
    *before, sentence = result.stderr.splitlines()
    assert not [line for line in before if not re.fullmatch(r"(starting|loading).*: [\d.]+ s", line)]
    assert sentence.startswith("sdscratch: error: ")
    assert said in sentence
    assert (result.code, result.stdout) == (code, b"")


TXT2IMG = [
    ("--width 100", 2, "the width is 100, but must be a multiple of 8 and at least 64"),
    ("-H 56", 2, "the height is 56"),
    ("--size 65x64", 2, "the width is 65"),
    ("--size 64", 2, "the size is '64', but must be WIDTHxHEIGHT, like 512x768"),
    ("--size 64x64 --width 64", 2, "--size says both sides"),
    ("--steps 0", 2, "steps is 0, but must be from 1 to 1000"),
    ("--steps x", 2, "--steps"),
    ("--cfg-scale nan", 2, "cfg-scale is nan"),
    ("--cfg inf", 2, "cfg-scale is inf"),
    ("--seed -1", 2, "seed is -1"),
    ("--seed 9223372036854775808", 2, "seed is 9223372036854775808"),
    ("--seed 9223372036854775807 -b 2", 2, "too high for 2 pictures; the last is 9223372036854775807"),
    ("--batch-count 0", 2, "batch-count"),
    ("--batch-size 0", 2, "--batch-size"),
    ("--sampler frob", 2, "no sampler is called 'frob'"),
    ("--scheduler frob", 2, "no scheduler is called 'frob'"),
    ("--device frob", 2, "no device is called 'frob'"),
    ("--dtype frob", 2, "no precision is called 'frob'"),
    ("--frob", 2, "No such option: --frob"),
    ("more", 2, "unexpected extra argument"),
    ("-o dog.gif", 2, "'dog.gif' ends neither in .png, .jpg, .jpeg, .webp, nor in / for a folder"),
    ("-o dog", 2, "'dog' ends neither in .png"),
    ("-o taken.png", 2, "taken.png exists already; give --overwrite"),
    ("-o - -b 2", 2, "--output - takes one picture only"),
    ("-o - --json", 2, "--output - and --json both write to stdout"),
    ("-o taken.png/dog.png", 1, "cannot write into taken.png: a part of its path is a file"),
    ("-m nowhere.safetensors", 3, "there is no model nowhere.safetensors"),
    ("-m nowhere.safetensors -o taken.png", 2, "taken.png exists already"),
    ("-m broken.safetensors", 3, "broken.safetensors"),
    ("-m notes.txt", 3, "notes.txt"),
    ("-m folder", 3, "folder"),
    ("-m init.png", 3, "init.png"),
    ("--tokenizer nowhere.json", 3, "nowhere.json"),
]
IMG2IMG = [
    ("", 2, "INIT is missing"),
    ("--init-img= dog", 2, "INIT is missing"),
    ("init.png", 2, "PROMPT is missing"),
    ("init.png dog -i init.png", 2, "INIT is given twice"),
    ("- -", 2, "stdin can be only one of them"),
    ("init.png dog --strength 2", 2, "strength is 2.0, but must be from 0 to 1"),
    ("init.png dog --strength nan", 2, "strength is nan"),
    ("init.png dog --strength -0.1", 2, "strength is -0.1"),
    ("init.png dog --fit frob", 2, "--fit"),
    ("init.png dog --background frob", 2, "no colour is called 'frob'"),
    ("low.png dog", 2, "the init picture is 64x40, too small; ask for a --size of at least 64x64"),
    ("nowhere.png dog", 4, "there is no picture nowhere.png"),
    ("folder dog", 4, "folder is a folder"),
    ("truncated.png dog", 4, "truncated.png is a PNG picture, but truncated or damaged"),
    ("huge.png dog", 4, "huge.png has more than 89 megapixels"),
    ("notes.txt dog", 4, "notes.txt is a text file"),
    ("init.png dog -o taken.png", 2, "taken.png exists already"),
    ("init.png dog -m nowhere.ckpt", 3, "there is no model nowhere.ckpt"),
]


def test_bad_input_is_one_sentence_before_torch_is_needed(tiny_model: Path) -> None:
    cases = [(["txt2img", "a dog", *options.split()], code, said) for options, code, said in TXT2IMG]
    cases += [(["img2img", *options.split()], code, said) for options, code, said in IMG2IMG]
    program = (
        "import json, sys\n"
        "from support.cli import sdscratch\n"
        "for words in json.load(sys.stdin):\n"
        "    result = sdscratch(*words)\n"
        "    line = result.code, result.stdout.decode(), result.stderr, 'torch' in sys.modules\n"
        "    print(json.dumps(line))\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "SDSCRATCH_MODEL": str(tiny_model),
    }
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([words for words, *_ in cases]),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    outcomes = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(outcomes) == len(cases)
    for (words, code, said), (got, stdout, stderr, torch_is_there) in zip(cases, outcomes, strict=True):
        assert (words, got, stdout, torch_is_there) == (words, code, "", False), stderr
        assert said in stderr, words
        assert re.fullmatch(r"sdscratch: error: [^\n]+\n", stderr), words
    assert Path("taken.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["txt2img", "-"], b"a d\xf6g", "byte 4 on stdin is not UTF-8"),
        (["txt2img", os.fsdecode(b"d\xf6g")], b"", "character 2 of the prompt is not valid text"),
        (["txt2img", "dog", "-n", os.fsdecode(b"\xff")], b"", "character 1 of the negative prompt"),
    ],
)
def test_a_prompt_that_is_no_text_is_wrong_usage(words: list[str], stdin: bytes, said: str) -> None:
    check(sdscratch(*words, stdin=stdin), 2, said)


def test_a_device_that_is_not_there_ends_with_5(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = sdscratch("txt2img", "a dog", "-m", tiny_model, "--device", "cuda")
    check(result, 5, "cuda was asked for, but there is no CUDA device here; use --device auto or cpu")


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"width": 63}, "the width is 63"),
        ({"sampler": "frob"}, "no sampler is called 'frob'"),
        ({"scheduler": 5}, "scheduler is 5"),
    ],
    ids=str,
)
def test_a_model_that_asks_for_nonsense_is_refused(
    defaults: dict[str, object], said: str, tiny_model: Path
) -> None:
    from safetensors.torch import load_file

    metadata = self_contained() | {"sdscratch.defaults": json.dumps(defaults)}
    write_ldm(Path("odd.safetensors"), load_file(tiny_model), metadata)
    said = f"odd.safetensors has broken sdscratch.defaults in its metadata: {said}"
    check(sdscratch("txt2img", "a dog", "-m", "odd.safetensors"), 3, said)


def test_a_missing_tokenizer_is_said_before_anything_is_loaded() -> None:
    metadata = {name: text for name, text in self_contained().items() if name != "sdscratch.tokenizer"}
    write_ldm(Path("mute.safetensors"), ldm_tensors(), metadata)
    result = sdscratch("txt2img", "a dog", "-m", "mute.safetensors", *SMALL)
    check(result, 3, "mute.safetensors comes without its tokenizer; name it with --tokenizer")
    assert "loading" not in result.stderr


def test_clip_skip_leaves_a_layer(tiny_model: Path) -> None:
    result = sdscratch("txt2img", "a dog", "-m", tiny_model, *SMALL, "--clip-skip", 2)
    check(result, 2, "clip-skip is 2, but the text encoder has 2 layers")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_ends_with_1(tiny_model: Path) -> None:
    Path("folder").chmod(0o500)
    check(sdscratch("txt2img", "a dog", "-m", tiny_model, "-o", "folder/"), 1, "permission is denied")


def test_overwrite_replaces_a_file(tiny_model: Path) -> None:
    assert sdscratch("txt2img", "a dog", "-m", tiny_model, *SMALL, "-o", "taken.png", "--overwrite").code == 0
    with Image.open("taken.png") as image:
        assert image.size == (64, 64)


@pytest.mark.parametrize(
    ("raised", "code", "sentence"),
    [
        (MemoryError(), 5, "out of memory; close other programs, or ask for less"),
        (RuntimeError("no such\nthing"), 1, "unexpected RuntimeError: no such thing; -v shows where"),
        (
            OSError(5, "Input/output error"),
            1,
            "unexpected OSError: [Errno 5] Input/output error; -v shows where",
        ),
    ],
    ids=["memory", "bug", "disk"],
)
def test_whatever_happens_is_one_sentence(
    raised: Exception, code: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(generate, "draw", fail)
    result = sdscratch("txt2img", "a dog")
    assert (result.code, result.stderr) == (code, f"sdscratch: error: {sentence}\n")


def test_verbose_shows_the_traceback_too() -> None:
    result = sdscratch("txt2img", "a dog", "-v", "--steps", 0)
    assert result.code == 2
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.splitlines()[-1].startswith("sdscratch: error: steps is 0")


def test_ctrl_c_before_any_work_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "draw", interrupt)
    result = sdscratch("txt2img", "a dog", "-v")
    assert (result.code, result.stdout, result.stderr) == (130, b"", "sdscratch: interrupted\n")


def test_the_version_is_told() -> None:
    assert sdscratch("--version").lines == [f"sdscratch {__version__}"]


def test_no_command_shows_the_commands_and_is_wrong_usage() -> None:
    result = sdscratch()
    assert result.code == 2
    assert "txt2img" in result.stdout.decode() + result.stderr
    assert "error" not in result.stderr


def helped(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = sdscratch(command, "--help")
    assert (result.code, result.stderr) == (0, "")
    text = result.stdout.decode()
    assert max(map(len, text.splitlines())) <= 80
    return text


@pytest.mark.parametrize("command", ["txt2img", "img2img", "convert-weights", "tokens", "info"])
def test_the_examples_of_the_help_can_be_pasted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = helped(command, monkeypatch)
    examples = text[text.index("Examples:") : text.index("Arguments:")].split("\n")[1:]
    lines = [line.strip() for line in examples if line.strip()]
    assert len(lines) >= 2
    # a line that was wrapped would go on in one that does not begin so
    assert [line for line in lines if f"sdscratch {command} " not in line or line.count('"') % 2] == []


OPTIONS = [
    "-n", "--negative-prompt", "-m", "--model", "--ckpt", "-o", "--output", "-W", "--width", "-H", "--height",
    "--size", "--steps", "--cfg-scale", "--cfg", "--scale", "-s", "--seed", "-b", "--batch-count", "--count",
    "--batch-size", "--sampler", "--scheduler", "--clip-skip", "--tokenizer", "--device", "--dtype", "-q",
    "--quiet", "-v", "--verbose", "--json", "--overwrite", "--eta",
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "more"),
    [("txt2img", []), ("img2img", ["-i", "--init-img", "--strength", "--fit", "--background"])],
)
def test_every_option_is_in_the_help(command: str, more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = helped(command, monkeypatch)
    for name in [*OPTIONS, *more]:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text), name


# --- As a program ----------------------------------------------------------------------------------------


@pytest.fixture
def program(tiny_model: Path) -> list[str]:
    """A command that takes for ever."""
    long = ["--size", "64x64", "--steps", "1", "-b", "1000", "--dtype", "float32", "--device", "cpu"]
    return [sys.executable, "-m", "sdscratch", "txt2img", "a dog", "-m", str(tiny_model), *long]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(
    ("sent", "code", "last"),
    [("SIGINT", 130, "sdscratch: interrupted"), ("SIGTERM", 143, ""), ("SIGHUP", 129, "")],
)
def test_a_signal_ends_the_work_and_leaves_whole_pictures_only(
    sent: str, code: int, last: str, program: list[str], folder: Path
) -> None:
    command = [*program, "-q", "-o", "new/", "--seed", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        first = running.stdout.readline().rstrip()
        time.sleep(0.1)  # into the next picture
        running.send_signal(getattr(signal, sent))
        stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stderr) == (code, f"{last}\n" if last else "")
    assert first == "new/0001-0.png"
    printed = [first, *stdout.splitlines()]
    found = sorted(str(path) for path in Path("new").rglob("*"))
    # saved but not yet told: where the signal fell between the two
    assert found[: len(printed)] == printed
    assert len(found) <= len(printed) + 1
    for path in found:
        with Image.open(path) as image:
            image.load()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_reader_that_has_gone_is_one_sentence(program: list[str]) -> None:
    command = [*program, "-q", "-o", "new/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        stderr = running.stderr.read()
    assert running.returncode == 1
    assert re.fullmatch(
        r"sdscratch: error: picture \d+ of 1000 failed: cannot write to standard output: "
        r"the program that reads it has ended\n",
        stderr,
    )


def test_threads_that_wait_leave_the_processor_to_others_unless_told_how_to_wait() -> None:
    environment: dict[str, str] = {}
    yield_sooner(environment)
    assert 0 < int(environment["GOMP_SPINCOUNT"]) < 300_000  # GNU's own
    for chosen in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        environment = dict(chosen)
        yield_sooner(environment)
        assert environment == chosen
