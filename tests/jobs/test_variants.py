"""Pictures that begin alike: first steps computed once, and every picture the one that is drawn alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sdscratch.generation.denoise import UNetRunner
from sdscratch.generation.known import Predictions, digest
from sdscratch.jobs import run as running
from sdscratch.models.conditioning import Conditioning
from support.cli import sdscratch
from support.loras import changes, is_attention, targets, write_lora

STEPS = 4
COMMON = {"seed": 3, "width": 64, "height": 64, "steps": STEPS, "model": "tiny", "cfg_scale": 1.0}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("variants")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
        for name in ("weights", "loras"):
            Path(name).mkdir()
        shutil.copy(tiny_model, "weights/tiny.safetensors")
        attention = [weight for weight in targets() if is_attention(weight)]
        write_lora(Path("loras/ink.safetensors"), changes(attention, seed=1))
        yield folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every time that the U-Net computes."""
    calls: list[int] = []
    plain = UNetRunner.computation

    def counted(self: UNetRunner, *arguments: Any) -> Callable[..., Any]:
        compute = plain(self, *arguments)
        return lambda *inputs: (calls.append(1), compute(*inputs))[1]

    monkeypatch.setattr(UNetRunner, "computation", counted)
    return calls


def drawn(lines: list[dict[str, Any]], folder: str) -> list[bytes]:
    Path(f"{folder}.jsonl").write_text("".join(f"{json.dumps(COMMON | line)}\n" for line in lines))
    done = sdscratch("run", f"{folder}.jsonl", "-o", folder, "-q", "--device", "cpu", "--dtype", "float32")
    assert done.code == 0, done.stderr
    return [Path(path).read_bytes() for path in done.lines]


def check(lines: list[dict[str, Any]], saved: int, asked: list[int], name: str) -> None:
    """The very files, and so many evaluations fewer."""
    shared = drawn(lines, f"{name}-shared")
    together, asked[:] = len(asked), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "with_variants", lambda tasks: ((task, False) for task in tasks))
        alone = drawn(lines, f"{name}-alone")
    assert shared == alone
    assert len(asked) - together == saved


def test_prompts_that_are_edited_later_share_the_steps_before(asked: list[int]) -> None:
    """By whichever sampler: with noise of its own, or with a memory of the steps before."""
    prompts = ("a [dog:cat:0.5] on grass", "a [dog:apple:0.5] on grass")
    samplers = ("euler", "euler_a", "dpm++2m", "dpm++2m_sde", "unipc", "ddpm")
    lines = [
        {"prompt": prompt, "sampler": sampler, "seed": seed}  # of one seed they would share the first step
        for prompt in prompts
        for seed, sampler in enumerate(samplers)
    ]
    before = STEPS // 2 + 1  # the web UI's editing counts one further
    check([*lines, {"prompt": "a cat"}], before * len(samplers), asked, "edited")
    assert len(asked) == STEPS * (len(lines) + 1)


def test_what_acts_later_is_all_that_is_computed_anew(asked: list[int]) -> None:
    """A second pass, a decoder, LoRAs and guidance of some steps; other seeds share nothing."""
    hires = {"prompt": "a dog", "sampler": "euler", "hires": 1.5, "hires_steps": 2, "hires_strength": 1.0}
    lines: list[dict[str, Any]] = [
        hires,
        hires | {"hires_prompt": "a cat"},  # the first pass: 4
        hires | {"hires_prompt": "a cat", "tile": 512},  # both: 6
        {"prompt": "a dog", "sampler": "euler"},  # 4
        {"prompt": "a dog", "sampler": "euler", "seed": 4},
        {"prompt": "a dog", "sampler": "euler", "lora": ["ink:0.8:stop=2"]},
        {"prompt": "a dog", "sampler": "euler", "lora": ["ink:0.8:stop=3"]},  # 2: another model's line
        {"prompt": "a dog <lora:ink:0.8:stop=1>", "sampler": "euler"},  # 1
    ]
    check(lines, 4 + 6 + 4 + 2 + 1, asked, "later")


def test_what_is_kept_is_bounded_and_told_apart_by_every_bit() -> None:
    x, told = torch.zeros(1, 4, 8, 8), Conditioning(torch.zeros(1, 77, 4))
    known = Predictions(most=3 * x.nbytes)
    for value in range(10):
        known("weights", x + value, torch.zeros(1), told, lambda: x)
    assert (known.found, len(known._kept), known._bytes) == (0, 3, 3 * x.nbytes)
    assert torch.equal(known("weights", x + 9, torch.zeros(1), told, lambda: x + 1), x)
    for other in (
        lambda: known("others", x + 9, torch.zeros(1), told, lambda: x),
        lambda: known("weights", (x + 9).nextafter(x), torch.zeros(1), told, lambda: x),
        lambda: known("weights", x + 9, torch.ones(1), told, lambda: x),
        lambda: known("weights", x + 9, torch.zeros(1), Conditioning(torch.ones(1, 77, 4)), lambda: x),
    ):
        other()
        assert known.found == 1
    assert digest(x) != digest(x.half()) != digest(x.reshape(1, 8, 4, 8)) != digest(None, x)
