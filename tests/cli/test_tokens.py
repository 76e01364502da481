"""The `tokens` command: what it prints, what it reads, and that torch is never imported for it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sdscratch.checkpoints.tokenizers import TOKENIZER
from sdscratch.cli.tokens import tokens
from sdscratch.cli.tokens_shown import plain_table, table
from sdscratch.errors import CheckpointError, SdscratchError, TokenizerError, UsageError
from sdscratch.text.cutting import cut_prompt
from sdscratch.text.reading import SYNTAXES
from support.checkpoints import ldm_tensors, self_contained, write_diffusers, write_ldm
from support.checkpoints import tiny_tokenizer as models_tokenizer
from support.prompts import random_prompts
from support.shared import shared_path
from support.tokenizers import clip_tokenizer, tiny_tokenizer, write_folder

app = typer.Typer()
app.command()(tokens)

Run = Callable[..., str]

# The same as a program, which says at its end on stderr whether torch was imported.
PROGRAM = """
import sys, typer
from sdscratch.cli.tokens import tokens
app = typer.Typer()
app.command()(tokens)
app(standalone_mode=False)
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""


def run(*arguments: object, stdin: str | bytes = "") -> str:
    """What the command prints; its error is raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def plain(*arguments: object, stdin: str | bytes = "") -> str:
    return run("--prompt-syntax", "plain", *arguments, stdin=stdin)


def plain_rows(*arguments: object, stdin: str | bytes = "") -> list[dict[str, Any]]:
    return lines("--prompt-syntax", "plain", *arguments, stdin=stdin)


def lines(*arguments: object, stdin: str | bytes = "") -> list[dict[str, Any]]:
    output = run("--json", *arguments, stdin=stdin)
    assert output.isascii()
    assert output.endswith("\n") or not output
    return [json.loads(line) for line in output.split("\n")[:-1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tokenizer"), tiny_tokenizer())


def test_json_has_the_golden_ids() -> None:
    table = shared_path("clip", "bpe_simple_vocab_16e6.txt.gz")
    [line] = plain_rows("a photograph of an astronaut riding a horse", "--tokenizer", table)
    assert list(line) == ["ids", "pieces", "truncated"]
    assert line["ids"] == [49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407]
    assert line["pieces"][:3] == ["<|startoftext|>", "a</w>", "photograph</w>"]
    assert line["truncated"] == 0


def test_json_is_what_the_tokenizer_says(folder: Path) -> None:
    prompts = [prompt.replace("\n", " ") for prompt in random_prompts(8, 300)]
    read = plain_rows("-", "--tokenizer", folder, stdin="".join(f"{prompt}\n" for prompt in prompts))
    expected = [cut_prompt(tiny_tokenizer(), prompt) for prompt in prompts]
    assert [tuple(line["ids"]) for line in read] == [tokens.ids for tokens in expected]
    assert [tuple(line["pieces"]) for line in read] == [tokens.pieces for tokens in expected]
    assert [line["truncated"] for line in read] == [tokens.truncated for tokens in expected]
    assert max(len(line["ids"]) for line in read) == 77


@pytest.mark.parametrize(
    ("stdin", "prompts"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"\n\n", ["", ""]),
        (b"dog", ["dog"]),
        (b"dog\n", ["dog"]),
        (b"dog\n\nred", ["dog", "", "red"]),
        (b"a\rdog\r\n", ["a dog"]),
        (b"a\x0bdog\x0ca\x1cdog\x1da\x1edog\n", ["a\x0bdog\x0ca\x1cdog\x1da\x1edog"]),
        ("a\x85dog\u2028a\u2029dog\0\n".encode(), ["a\x85dog\u2028a\u2029dog\0"]),
    ],
)
def test_only_a_line_feed_ends_a_prompt(stdin: bytes, prompts: list[str], folder: Path) -> None:
    read = plain_rows("-", "--tokenizer", folder, stdin=stdin)
    assert [tuple(line["ids"]) for line in read] == [tiny_tokenizer().encode(p).ids for p in prompts]


def test_a_line_that_is_not_utf_8_is_named_and_those_before_it_are_printed(folder: Path) -> None:
    result = CliRunner().invoke(app, ["-", "--json", "--tokenizer", str(folder)], input=b"dog\nd\xffg\ndog\n")
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith("byte 2 of line 2 on stdin is not UTF-8")
    assert len(result.stdout.splitlines()) == 1


def test_a_prompt_that_is_not_utf_8_is_wrong_usage(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, os.fsencode("a d") + b"\xff", "--tokenizer", folder],
        capture_output=True,
        check=False,
    )
    assert b"UsageError: character 4 of the prompt is not valid text" in result.stderr


def test_a_pipe_gets_a_line_a_token_and_what_was_cut(folder: Path) -> None:
    assert plain("A dog", "--tokenizer", folder).splitlines() == [
        f"   1  {tiny_tokenizer().start:>6}  <|startoftext|>",
        f"   2  {tiny_tokenizer().vocabulary.ids['a</w>']:>6}  a</w>",
        f"   3  {tiny_tokenizer().vocabulary.ids['dog</w>']:>6}  dog</w>",
        f"   4  {tiny_tokenizer().end:>6}  <|endoftext|>",
        "",
    ]
    cut = plain("dog " * 76 + "Red", "--tokenizer", folder).splitlines()
    assert cut[-2] == "the prompt is longer than 75 tokens; its last 2 are not used: 'dog Red'"
    assert len(cut) == 79


def test_the_table_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    prompt = "a [bold]dog[/bold] 🐶 :smile: " + "photograph " * 62 + "by a lake"
    plain_table(cut_prompt(clip_tokenizer(), prompt))
    *table, notice = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["#", "id", "piece"]
    assert [line.split()[0] for line in table[1:]] == [str(place) for place in range(1, 78)]
    assert table[3].split() == ["3", "314", "[</w>"]
    assert max(map(len, table)) <= 80
    assert notice.endswith("'by a lake'")


def test_a_terminal_gets_the_table_and_no_escape_of_a_prompts_own(folder: Path, tmp_path: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    hostile = write_folder(tmp_path, tiny_tokenizer())
    vocabulary["\x1b[2Jdog"] = len(vocabulary)
    (hostile / "vocab.json").write_text(json.dumps(vocabulary))
    (hostile / "tokenizer_config.json").unlink()
    (hostile / "added_tokens.json").write_text(json.dumps({"\x1b[2Jdog": len(vocabulary) - 1}))
    assert "\x1b" not in run("a \x1b[2Jdog <\x1b:> AND \x1b", "--tokenizer", hostile)
    assert "\x1b" not in plain("a \x1b[2Jdog", "--tokenizer", hostile)
    assert r"\x1b[2Jdog" in plain("a \x1b[2Jdog", "--tokenizer", hostile)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_models_own_tokenizer_is_taken(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "file":
        model = write_ldm(tmp_path / "model.safetensors", ldm_tensors(), self_contained())
    else:
        model = write_diffusers(tmp_path / "model", tokenizer=models_tokenizer())
    ids = list(models_tokenizer().encode("the red dog").ids)
    for option in ("-m", "--model", "--ckpt"):
        assert plain_rows("the red dog", option, model)[0]["ids"] == ids
    monkeypatch.setenv("SDSCRATCH_MODEL", str(model))
    assert plain_rows("the red dog")[0]["ids"] == ids


def test_a_tokenizer_named_goes_before_the_models(folder: Path, tmp_path: Path) -> None:
    model = write_ldm(tmp_path / "model.safetensors", ldm_tensors(), self_contained())
    [line] = plain_rows("the red dog", "-m", model, "--tokenizer", folder)
    assert line["ids"] == list(tiny_tokenizer().encode("the red dog").ids)


def test_a_file_without_tokenizer_takes_the_one_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = {key: value for key, value in self_contained().items() if key != TOKENIZER}
    model = write_ldm(tmp_path / "model.safetensors", ldm_tensors(), metadata)
    write_folder(tmp_path, models_tokenizer())
    assert plain_rows("the red dog", "-m", model)[0]["ids"] == list(
        models_tokenizer().encode("the red dog").ids
    )
    with caplog.at_level(logging.INFO, "sdscratch"):  # restores what -v sets
        run("the red dog", "-m", model, "-v")
    assert str(tmp_path) in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--tokenizer", "nowhere"], TokenizerError),
        (["--model", "nowhere.safetensors"], CheckpointError),
        (["--model", __file__], CheckpointError),
    ],
)
def test_what_is_missing_or_no_model_is_refused(arguments: list[str], error: type[SdscratchError]) -> None:
    with pytest.raises(error) as caught:
        run("a dog", *arguments)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", ["tokenizer", "file", "folder"])
def test_torch_is_not_imported(kind: str, folder: Path, tmp_path: Path) -> None:
    chosen: list[str | Path] = ["--tokenizer", folder]
    if kind == "file":
        chosen = ["--model", write_ldm(tmp_path / "model.safetensors", ldm_tensors(), self_contained())]
    if kind == "folder":
        chosen = ["--model", write_diffusers(tmp_path / "model", tokenizer=models_tokenizer())]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "a dog", "--json", *chosen],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["parts"] == [["a dog", 1.0]]


def test_lines_are_answered_as_they_come(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "-", "--json", "--tokenizer", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(60.0, process.kill)  # lest an answer that waits for more hang the tests
        watchdog.start()
        for prompt in ("a dog", "", "a red apple"):
            process.stdin.write(f"{prompt}\n".encode())
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            ids = tiny_tokenizer().encode(prompt).ids
            assert tuple(answer["chunks"][0]["ids"][: len(ids)]) == ids
        watchdog.cancel()
        process.stdin.close()


def test_10_000_lines_take_a_few_seconds(folder: Path) -> None:
    stdin = "a dog wearing sunglasses on a purple background, highly detailed\n" * 10_000
    before = time.process_time()
    assert run("-", "--json", "--tokenizer", folder, stdin=stdin).count("\n") == 10_000
    assert plain("-", "--json", "--tokenizer", folder, stdin=stdin).count("\n") == 10_000
    assert plain("-", "--tokenizer", folder, stdin=stdin).count("<|endoftext|>") == 10_000
    assert time.process_time() - before < 15.0


# Other syntaxes


def clip_table() -> Path:
    return shared_path("clip", "bpe_simple_vocab_16e6.txt.gz")


def golden(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(shared_path("golden", name).read_text("utf-8"))["rows"]
    return [row for row in rows if "\n" not in row["prompt"] and not isinstance(row.get("attention"), dict)]


def weights(chunk: dict[str, Any], key: str) -> list[float]:
    return [value for count, value in chunk[key] for _ in range(count)]


def test_json_is_what_a1111_reads() -> None:
    rows = golden("prompts_a1111.json")
    stdin = "".join(f"{row['prompt']}\n" for row in rows)
    for row, line in zip(rows, lines("-", "--tokenizer", clip_table(), stdin=stdin), strict=True):
        assert list(line) == ["parts", "schedule", "and", "chunks"]
        assert line["parts"] == row["attention"]
        assert line["schedule"] == row["schedule_20"]
        assert line["and"] == row["multicond"]
        assert [chunk["ids"] for chunk in line["chunks"]] == [chunk["ids"] for chunk in row["chunks"]]
        wanted = [weights(chunk, "mult_rle") for chunk in row["chunks"]]
        assert [chunk["weights"] for chunk in line["chunks"]] == wanted
        assert all(chunk["vectors"] == [] for chunk in line["chunks"])


def test_json_is_what_comfyui_reads() -> None:
    rows = golden("prompts_comfy.json")
    stdin = "".join(f"{row['prompt']}\n" for row in rows)
    read = lines("-", "--tokenizer", clip_table(), "--prompt-syntax", "comfyui", stdin=stdin)
    for row, line in zip(rows, read, strict=True):
        assert line["parts"] == row["segments"]
        assert line["schedule"] == [[20, row["prompt"]]]
        assert line["and"] == [[row["prompt"], 1.0]]
        assert [chunk["ids"] for chunk in line["chunks"]] == [chunk["ids"] for chunk in row["chunks"]]
        wanted = [weights(chunk, "weight_rle") for chunk in row["chunks"]]
        assert [chunk["weights"] for chunk in line["chunks"]] == wanted


def test_steps_are_what_editing_is_reckoned_with() -> None:
    [line] = lines("[a:b:0.25]", "--steps", 40, "--tokenizer", clip_table())
    assert line["schedule"] == [[10, "a"], [40, "b"]]
    [line] = lines('("a", "b").and(1, 0.5)', "--prompt-syntax", "compel", "--tokenizer", clip_table())
    assert line["and"] == [["a", 1.0], ["b", 0.5]]
    assert len(line["chunks"]) == 2


EMBEDDINGS = {
    "kohya": {"emb_params": (3, 768)},
    "diffusers": {"<zorb>": (768,)},
    "SDXL": {"clip_l": (2, 768), "clip_g": (2, 1280)},
}


@pytest.mark.parametrize(("kind", "count"), [("kohya", 3), ("diffusers", 1), ("SDXL", 2)])
def test_an_embedding_stands_where_it_is_named(kind: str, count: int, tmp_path: Path) -> None:
    path = write_embedding(tmp_path / "zorbstyle.safetensors", EMBEDDINGS[kind])
    options = ("--tokenizer", clip_table(), "--embedding", path)
    [line] = lines("a (ZorbStyle:1.2) cat", *options)
    [chunk] = line["chunks"]
    assert chunk["vectors"] == [{"at": 2, "name": "zorbstyle", "count": count}]
    assert chunk["ids"][: count + 3] == [49406, 320, *[0] * count, 2368]
    assert chunk["weights"][: count + 3] == [1.0, 1.0, *[1.2] * count, 1.0]
    [line] = lines("a embedding:zorbstyle cat", *options, "--prompt-syntax", "comfyui")
    assert line["chunks"][0]["vectors"] == [{"at": 2, "name": "zorbstyle", "count": count}]
    assert "zorbstyle[0]" in run("a zorbstyle", *options)


def write_embedding(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)
    return path


def test_what_is_no_embedding_is_refused(tmp_path: Path) -> None:
    path = write_embedding(tmp_path / "lora.safetensors", {"lora_unet.up.weight": (4, 4, 3, 3)})
    with pytest.raises(CheckpointError, match=r"lora\.safetensors is no textual inversion embedding"):
        run("a cat", "--tokenizer", clip_table(), "--embedding", path)


def test_an_unknown_syntax_is_wrong_usage(folder: Path) -> None:
    with pytest.raises(UsageError, match="no prompt syntax 'forge'; take one of a1111"):
        run("a cat", "--prompt-syntax", "forge", "--tokenizer", folder)


def test_weights_that_are_no_numbers_are_words_in_json(folder: Path) -> None:
    [line] = lines("(a:nan) (b:inf)", "--prompt-syntax", "comfyui", "--tokenizer", folder)
    assert line["parts"] == [["a", "nan"], [" ", 1.0], ["b", "inf"]]


def test_a_pipe_is_told_parts_stages_and_chunks() -> None:
    prompt = "(a cat:1.3) BREAK [dog:hat:0.5] AND sky:0.7 <lora:x:1>"
    told = run(prompt, "--tokenizer", clip_table(), "--steps", 10).splitlines()
    assert told[:4] == [
        "<lora:x:1> asks for an add-on and is taken out of the prompt",
        "part 1 of 2, weight 1: (a cat:1.3) BREAK [dog:hat:0.5]",
        "evaluations 0 to 5: (a cat:1.3) BREAK dog",
        "chunk 1 of 2: 2 of 75 tokens, BREAK",
    ]
    assert told[5] == "   2     320     1.3  a</w>"
    assert "evaluations 6 to 10: (a cat:1.3) BREAK hat" in told
    assert "part 2 of 2, weight 0.7:  sky" in told


def test_an_alternation_of_many_stages_is_told_in_a_few(folder: Path) -> None:
    told = run("[a|b]", "--steps", 50, "--tokenizer", folder)
    assert told.count("evaluations") == 9
    assert "and so on: 50 stages in 50 evaluations" in told


def test_the_table_of_weights_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    prompt = "a ([bold]dog:1.5)[/bold] (🐶:-1) [cat|hat] AND sky:2, " + "photograph " * 90
    table(prompt, clip_tokenizer(), SYNTAXES["a1111"], 20, [])
    shown = capsys.readouterr().out.splitlines()
    rows = [line for line in shown if line.split()[:1] == ["2"]]
    assert rows[0].split() == ["2", "320", "1", "a</w>"]
    assert "chunk 2 of 2: 19 of 75 tokens" in "".join(shown)
