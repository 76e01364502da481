"""What other tools say of a picture, as lines of a plan; and files found by what is said of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdscratch.addons.requests import LoraRequest
from sdscratch.images import Infotext, parse_infotext
from sdscratch.jobs.finding import Found, Library, Wanted, named_only
from sdscratch.jobs.theirs import TOOLS, tagged, told_by
from sdscratch.options import SD1_DEFAULTS, GenerateOptions, hires_size

A1111 = (
    "a fox <lora:ink:0.7>\nNegative prompt: bad\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, "
    "CFG scale: 7, Seed: 5, Size: 512x768, Model hash: 6ce0161689, Model: v1-5, VAE hash: 735e4c3a44, "
    "VAE: vae-ft-mse-840000-ema-pruned.safetensors, Clip skip: 2, RNG: CPU, ENSD: 31337, "
    'Lora hashes: "ink: 0123456789ab, a, b: ba9876543210", TI hashes: "easyneg: c74b4e810b03", '
    "Hypernet: anime, Version: v1.10.1"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    return tmp_path


def test_what_a1111_says_becomes_options_and_files() -> None:
    told = told_by("a1111", parse_infotext(A1111))
    assert told.values == {
        "like": "a1111", "prompt": "a fox <lora:ink:0.7>", "negative_prompt": "bad", "steps": 20,
        "sampler": "dpm++2m", "scheduler": "karras", "cfg_scale": 7.0, "seed": 5, "width": 512, "height": 768,
        "clip_skip": 2, "noise": "cpu", "ensd": 31337,
    }  # fmt: skip
    assert told.model == Wanted("model", "v1-5", ("6ce0161689",))
    assert told.vae == Wanted("vae", "vae-ft-mse-840000-ema-pruned", ("735e4c3a44",))
    assert told.embeddings == [Wanted("embedding", "easyneg", ("c74b4e810b03",))]
    assert list(tagged(told)) == [(LoraRequest("ink", 0.7), Wanted("lora", "ink", ("0123456789ab",)))]
    assert told.hashes["a, b"] == ("ba9876543210",)
    assert told.unmatched == ["Hypernet: anime"]


def test_every_setting_is_read_or_told() -> None:
    """Nothing is dropped in silence."""
    for key, value in (("Hypernet", "x"), ("Steps", "many"), ("Sampler", "Nobody's"), ("Seed", "-3")):
        told = told_by("a1111", Infotext("a", "", {key: value}))
        assert told.unmatched == [f"{key}: {value}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"Sampler": "DPM++ 2M Karras"}, {"sampler": "dpm++2m", "scheduler": "karras"}),
        ({"Schedule type": "Automatic"}, {}),
        ({"RNG": "NV"}, {"noise": "nv"}),
        ({"Clip skip": "1"}, {}),
        ({"Eta DDIM": "0.3", "Sampler": "DDIM"}, {"eta": 0.3, "sampler": "ddim"}),
    ],
)
def test_settings_mean_what_the_tool_means_by_them(text: dict[str, str], expected: dict[str, object]) -> None:
    told = told_by("a1111", Infotext("a", "", text))
    own = {"like", "prompt", "negative_prompt"}
    assert {key: value for key, value in told.values.items() if key not in own} == expected
    assert told.unmatched == []


def test_the_count_of_clip_skip_is_that_of_the_tool_drawn_like() -> None:
    text = Infotext("a", "", {"Clip skip": "2"})
    assert told_by("a1111", text).values["clip_skip"] == 2
    assert told_by("diffusers", text).values["clip_skip"] == 1
    assert told_by("a1111", text, like="diffusers").values["clip_skip"] == 1


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_conventions(tool: str) -> None:
    told = told_by(tool, Infotext("a fox", "", {"Steps": "4", "Model": "v1-5.safetensors"}))
    assert told.values["steps"] == 4
    assert told.model == Wanted("model", "v1-5")
    assert told_by(tool, Infotext("a", "", {}), like="forge").values["like"] == "forge"


def test_a_strength_says_that_there_was_a_picture_unless_it_is_of_a_second_pass() -> None:
    text = {"Denoising strength": "0.7"}
    assert told_by("a1111", Infotext("a", "", text)).from_picture
    assert not told_by("a1111", Infotext("a", "", text | {"Hires upscale": "2"})).from_picture


def test_a_second_pass_is_read_as_it_is_written() -> None:
    text = {
        "Denoising strength": "0.4", "Hires upscale": "1.5", "Hires steps": "12", "Tiling": "True",
        "Hires upscaler": "Latent (nearest-exact)", "Hires sampler": "Euler a", "Hires prompt": "a fox",
        "Hires schedule type": "Use same scheduler", "Hires CFG Scale": "5",
    }  # fmt: skip
    told = told_by("a1111", Infotext("a", "", text))
    assert told.unmatched == []
    read = GenerateOptions(**told.values).resolve(SD1_DEFAULTS, 1)
    assert (read.hires, read.hires_strength, read.hires_steps) == (1.5, 0.4, 12)
    assert (read.hires_upscaler, read.hires_prompt) == ("latent-nearest-exact", "a fox")
    assert (read.hires_cfg_scale, read.seamless) == (5.0, "xy")
    assert (read.hires_sampler, read.hires_scheduler) == ("euler_a", None)
    resized = told_by("a1111", Infotext("a", "", {"Hires resize": "1024x1024", "Hires steps": "5"}))
    assert len(resized.unmatched) == 2


def test_a_second_pass_by_size_and_one_by_a_file_are_read() -> None:
    sized = {"Size": "512x768", "Hires resize": "1024x1536", "Hires upscaler": "ESRGAN_4x"}
    told = told_by("a1111", Infotext("a", "", sized))
    assert told.values["hires"] == 2.0
    assert told.upscaler == Wanted("upscaler", "ESRGAN_4x")
    told = told_by("a1111", Infotext("a", "", sized | {"Hires resize": "1024x1024"}))
    assert told.unmatched == ["Hires resize: 1024x1024"]
    assert told_by("a1111", Infotext("a", "", sized | {"Hires resize": "0x1536"})).values["hires"] == 2.0
    for width in range(512, 768, 8):  # whatever the division gives, the size is reached
        told = told_by(
            "a1111", Infotext("a", "", {"Size": f"{width}x512", "Hires resize": f"{width + 504}x0"})
        )
        assert hires_size(width, 512, told.values["hires"])[0] == width + 504


def test_loras_beside_the_prompt() -> None:
    told = told_by("comfyui", Infotext("a", "", {"Loras": "styles\\ink.safetensors: 0.5, b: -1"}))
    assert [(request.name, request.weight) for request, _ in told.loras] == [("ink", 0.5), ("b", -1.0)]


def test_civitais_hashes_count_too() -> None:
    hashes = json.dumps({"model": "6CE0161689", "lora:ink": "abcdefabcd", "embed:bad": "1234567890"})
    told = told_by("a1111", Infotext("<lora:ink:1>", "", {"Model": "x", "Hashes": hashes}))
    assert told.model == Wanted("model", "x", ("6ce0161689",))
    assert told.hashes == {"ink": ("abcdefabcd",)}


# --- Finding ---------------------------------------------------------------------------------------------


def made(path: Path, value: float = 1.0, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.full((4,), value)}, path, metadata or None)
    return path


def whole(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensors(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def test_a_file_is_found_by_any_of_its_hashes_whatever_it_is_called(folder: Path) -> None:
    path = made(folder / "loras" / "sub" / "renamed.safetensors", sshs_model_hash="fe" * 32)
    made(folder / "loras" / "ink.safetensors", 2.0)
    library = Library()
    for digits in (whole(path)[:10], whole(path), tensors(path)[:12], tensors(path)[:10], "fe" * 6):
        assert library.find(Wanted("lora", "ink", (digits,))) == Found(
            "loras/sub/renamed.safetensors", "hash"
        )
    old = folder / "weights" / "old.ckpt"
    old.parent.mkdir()
    old.write_bytes(bytes(0x100000) + b"sd" * 0x9000)
    digits = hashlib.sha256(old.read_bytes()[0x100000:0x110000]).hexdigest()[:8]
    assert library.find(Wanted("model", "v1-4", (digits,))) == Found("weights/old.ckpt", "hash")


def test_what_is_known_by_name_alone_is_said_where_a_hash_is_told(folder: Path) -> None:
    made(folder / "loras" / "Ink.safetensors")
    library = Library()
    plain, hashed = Wanted("lora", "ink"), Wanted("lora", "ink", ("0" * 10,))
    for wanted in (plain, hashed):
        assert library.find(wanted) == Found("loras/Ink.safetensors", "name")
    assert named_only(plain, Found("x", "name")) is None
    assert "by name alone" in (named_only(hashed, Found("x", "name")) or "")
    assert library.find(Wanted("lora", "chalk", ("1" * 10,))) is None


def test_other_folders_are_looked_through_to_the_bottom(folder: Path) -> None:
    path = made(folder / "far" / "away" / "b" / "ink.safetensors")
    assert Library().find(Wanted("lora", "ink", (whole(path)[:10],))) is None
    found = Library([folder / "far"]).find(Wanted("lora", "x", (whole(path)[:10],)))
    assert found == Found(str(path), "hash")


def test_what_was_hashed_once_is_remembered_and_only_new_files_have_a_bar(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    for number in range(3):
        made(folder / "loras" / f"{number}.safetensors", float(number))
    bars: list[int] = []
    steps: list[float] = []

    def bar(total: int) -> nullcontext[object]:
        bars.append(total)
        return nullcontext(steps.append)

    wanted = Wanted("lora", "none", ("0" * 10,))
    assert Library(bar=bar).find(wanted) is None  # type: ignore[arg-type]
    assert len(bars) == 1
    assert steps[-1] == bars[0] == sum(path.stat().st_size for path in (folder / "loras").iterdir())
    monkeypatch.setattr("sdscratch.checkpoints.hashing._hash", lambda *_: pytest.fail("read again"))
    assert Library(bar=bar).find(wanted) is None  # type: ignore[arg-type]
    assert len(bars) == 1
