"""`--lora` and `<lora:…>` on the command line: pictures, records, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdscratch.images import LoraRecord, parse_infotext, read_records
from support.cli import Result, sdscratch
from support.loras import changes, is_attention, targets, write_lora
from support.pictures import gradient

Draw = Callable[..., Result]
SMALL = ["--size", "64x64", "--steps", 2, "--seed", 5, "--device", "cpu", "--dtype", "float32"]
PEFT_NAME = "unet.mid_block.attentions.0.proj_in"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: with a LoRA in ./loras, one in the user's folder, and one here."""
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("SDSCRATCH_MODEL", raising=False)
    for place in ("loras", "XDG_DATA_HOME/sdscratch/loras"):
        Path(place).mkdir(parents=True)
    attention = [weight for weight in targets() if is_attention(weight)]
    write_lora(Path("loras/ink.safetensors"), changes(attention))
    write_lora(Path("XDG_DATA_HOME/sdscratch/loras/chalk.safetensors"), changes(attention, seed=1))
    write_lora(Path("c:one.safetensors"), changes(attention))
    return tmp_path


@pytest.fixture
def draw(tiny_model: Path) -> Draw:
    """Draw "a dog" in two steps; what is given comes on top."""

    def run(*arguments: object, prompt: str = "a dog") -> Result:
        return sdscratch("txt2img", prompt, "-m", tiny_model, *SMALL, *arguments)

    return run


def pixels(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image.convert("RGB"))


def test_a_lora_changes_the_picture_by_file_by_name_and_by_tag(draw: Draw) -> None:
    ways = {
        "plain": draw("-o", "plain.png"),
        "file": draw("-o", "file.png", "--lora", "loras/ink.safetensors:0.6"),
        "name": draw("-o", "name.png", "--lora", "ink:0.6"),
        "colon": draw("-o", "colon.png", "--lora", "c:one.safetensors:0.6"),
        "tag": draw("-o", "tag.png", prompt="a <lora:ink:0.6>dog"),
        "zero": draw("-o", "zero.png", "--lora", "ink:0"),
        "full": draw("-o", "full.png", "--lora", "c:one.safetensors"),
        "two": draw("-o", "two.png", "--lora", "chalk:-0.5", prompt="a dog<lora:ink:0.6>"),
    }
    assert {name: result.code for name, result in ways.items()} == dict.fromkeys(ways, 0)
    shown = {name: pixels(f"{name}.png") for name in ways}
    for name in ("name", "colon", "tag"):
        assert np.array_equal(shown[name], shown["file"]), name
    assert np.array_equal(shown["zero"], shown["plain"])
    different = [shown[name].tobytes() for name in ("plain", "file", "full", "two")]
    assert len(set(different)) == 4


def test_the_same_seed_gives_the_same_file_in_any_batch(draw: Draw) -> None:
    options = ["--lora", "ink:0.6", "--lora", "chalk"]
    draw("-o", "alone.png", *options, "--seed", 6)
    draw("-o", "batch.png", *options, "-b", 2)
    assert Path("alone.png").read_bytes() == Path("batch-2.png").read_bytes()


def after_header(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_the_picture_and_the_json_line_say_which_loras(draw: Draw) -> None:
    result = draw("--json", "-o", "dog.png", "--lora", "chalk:-0.5", prompt="a dog <lora:ink:0.6>")
    files = {"chalk": "XDG_DATA_HOME/sdscratch/loras/chalk.safetensors", "ink": "loras/ink.safetensors"}
    hashes = {name: hashlib.sha256(Path(f).read_bytes()).hexdigest()[:10] for name, f in files.items()}
    tensors = {name: hashlib.sha256(after_header(Path(f))).hexdigest()[:12] for name, f in files.items()}
    expected = (
        LoraRecord("chalk", -0.5, hashes["chalk"], tagged=False, autov3=tensors["chalk"]),
        LoraRecord("ink", 0.6, hashes["ink"], tagged=True, autov3=tensors["ink"]),
    )
    record = read_records("dog.png").record
    assert record is not None
    assert record.loras == expected
    assert record.options.prompt == "a dog <lora:ink:0.6>"
    assert json.loads(result.stdout)["loras"] == json.loads(record.to_json())["loras"]
    with Image.open("dog.png") as image:
        text = parse_infotext(image.info["parameters"])
    assert text.prompt == "a dog <lora:ink:0.6> <lora:chalk:-0.5>"
    assert text.parameters["Lora hashes"] == f"chalk: {tensors['chalk']}, ink: {tensors['ink']}"
    assert sdscratch("info", "dog.png").code == 0


def test_image_to_image_takes_them_too(tiny_model: Path) -> None:
    gradient(64, 64).save("init.png")
    for name, options in {"plain": [], "ink": ["--lora", "ink"]}.items():
        run = sdscratch(
            "img2img", "init.png", "a dog", "-m", tiny_model, *SMALL, "-o", f"{name}.png", *options
        )
        assert run.code == 0, run.stderr
    assert not np.array_equal(pixels("plain.png"), pixels("ink.png"))


def test_a_converted_model_has_them_baked_in(draw: Draw, tiny_model: Path) -> None:
    baked = sdscratch(
        "convert-weights", tiny_model, "baked.safetensors", "--lora", "ink:0.6", "--lora", "chalk"
    )
    assert (baked.code, baked.lines) == (0, ["baked.safetensors"])
    draw("-o", "added.png", "--lora", "ink:0.6", "--lora", "chalk")
    draw("-o", "baked.png", "-m", "baked.safetensors")
    assert np.array_equal(pixels("added.png"), pixels("baked.png"))


def write_strangers() -> None:
    save_file({"emb_params": torch.zeros(2, 768)}, "embedding.safetensors")
    save_file({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": torch.zeros(4, 4)}, "loha.safetensors")
    wide = {
        f"{PEFT_NAME}.lora_A.weight": torch.zeros(2, 1280),
        f"{PEFT_NAME}.lora_B.weight": torch.zeros(1280, 2),
    }
    save_file(wide, "wide.safetensors")
    save_file({name.replace("mid_block", "end_block"): t for name, t in wide.items()}, "other.safetensors")


@pytest.mark.parametrize(
    ("option", "code", "said"),
    [
        ("missing.safetensors:0.5", 3, "there is no LoRA missing.safetensors"),
        ("embedding.safetensors", 3, "is a textual inversion embedding"),
        ("loha.safetensors:1", 3, "lacks the other half of lora_unet_mid"),
        ("wide.safetensors", 3, "does not fit [64, 64, 1, 1]"),
        ("other.safetensors", 3, "no place for unet.end_block.attentions.0.proj_in.lora_A.weight"),
        ("ink:1e999", 2, "too large"),
        (":1", 2, "names no file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["txt2img", "convert-weights"])
def test_what_goes_wrong_is_one_sentence_before_anything_slow(
    tiny_model: Path, option: str, code: int, said: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_strangers()
    monkeypatch.setattr("sdscratch.checkpoints.model.ModelFiles.load", None)
    model = ["a dog", "-m", tiny_model, *SMALL] if command == "txt2img" else [tiny_model]
    result = sdscratch(command, *model, "--lora", option, "-q")
    assert result.code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == b""


@pytest.mark.parametrize(
    ("prompt", "code", "said"),
    [
        ("a dog <lora:missing:1>", 3, "there is no LoRA missing"),
        ("a dog <lora:ink:strong>", 2, "<lora:ink:strong>; a tag says <lora:name>"),
        ("<lora:>", 2, "a tag says <lora:name>"),
    ],
)
def test_a_wrong_tag_is_said_before_torch_is_asked(
    draw: Draw, prompt: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sdscratch.generation.pipeline", None)
    result = draw(prompt=prompt)
    assert (result.code, result.stdout) == (code, b"")
    assert said in result.stderr


def test_a_tag_in_the_negative_prompt_is_refused(draw: Draw) -> None:
    result = draw("-n", "cat <lora:ink:1>")
    assert result.code == 2
    assert "negative prompt" in result.stderr


def test_a_lora_given_as_the_model_is_told_where_it_belongs() -> None:
    result = sdscratch("txt2img", "a dog", "-m", "loras/ink.safetensors")
    assert result.code == 3
    assert "is a LoRA in kohya's layout" in result.stderr
    assert "give it with --lora" in result.stderr


def test_the_help_tells_of_them() -> None:
    for command in ("txt2img", "img2img", "convert-weights"):
        assert "--lora" in sdscratch(command, "--help").stdout.decode()


def test_steps_are_refused_where_nothing_can_follow_them(tiny_model: Path) -> None:
    run = sdscratch("convert-weights", tiny_model, "x.safetensors", "--lora", "ink:1:start=2")
    assert run.code == 2
    assert "the LoRA ink has start= or stop=, but a file of weights knows no steps" in run.stderr


def test_another_vae_decodes(draw: Draw, tiny_model: Path) -> None:
    other = {
        name: t + 0.02 for name, t in load_file(tiny_model).items() if name.startswith("first_stage_model.")
    }
    save_file(other, "other.safetensors")
    draw("-o", "own.png")
    draw("-o", "other.png", "--vae", "other.safetensors")
    assert not np.array_equal(pixels("own.png"), pixels("other.png"))
    baked = sdscratch("convert-weights", tiny_model, "baked.safetensors", "--vae", "other.safetensors")
    assert baked.code == 0, baked.stderr
    draw("-o", "baked.png", "-m", "baked.safetensors")
    assert np.array_equal(pixels("other.png"), pixels("baked.png"))
