"""Films from one picture to another: they begin and end with the very pictures, and go between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch.nn.functional import normalize

from sdscratch.generation.between import on_the_way
from support.cli import Result, sdscratch

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))


@pytest.fixture
def draw(tiny_model: Path) -> Run:
    small = ["-W", 64, "-H", 64, "--steps", 2, "--sampler", "euler", "--device", "cpu", "--dtype", "float32"]

    def run(prompt: str, *words: object) -> Result:
        return sdscratch("txt2img", prompt, "-m", tiny_model, "--cfg", 3, "-q", *small, *words)

    return run


def frames(path: str) -> list[np.ndarray]:
    with Image.open(path) as film:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(film)]


def test_a_film_goes_from_one_prompt_and_seed_to_another(draw: Run) -> None:
    """Prompts of other lengths, and one that is edited; there and back."""
    long = "a cat " + "on grass " * 50
    words = ("--film", "a.apng", "--frames", 4, "--film-loop", "--film-to", long, "--film-to-seed", 9)
    film = draw("a [dog:fox:0.5]", "--seed", 1, "-o", "a.png", *words)
    assert (film.code, film.lines) == (0, ["a.png"]), film.stderr
    assert draw("a [dog:fox:0.5]", "--seed", 1, "-o", "first.png").code == 0
    assert draw(long, "--seed", 9, "-o", "last.png").code == 0
    assert Path("a.png").read_bytes() == Path("first.png").read_bytes()
    seen = frames("a.apng")
    assert len(seen) == 4 + 2
    assert np.array_equal(seen[0], frames("first.png")[0])
    assert (
        np.abs(seen[3] - frames("last.png")[0]).max() <= 1
    )  # a shorter prompt's texts are rounded otherwise
    for there, back in ((1, 5), (2, 4)):
        assert np.array_equal(seen[there], seen[back])
    distances = [np.abs(each - seen[0]).mean() for each in seen[:4]]
    assert distances == sorted(distances)
    assert distances[1] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--film-to", "b"], "--film-to is about --film"),
        (["--film-to-seed", 0], "--film-to-seed is about --film"),
        (["--film", "a.gif", "--film-to", "b", "-b", 2], "begins with one"),
        (["--film", "a.gif", "--film-to", "b", "--frames", 1], "two at least"),
        (["--film", "a.gif", "--film-to", "b <lora:x:1>"], "little by little"),
        (["--film", "a.gif", "--film-to", "b AND c", "--frames", 2], "let both have as many"),
        (["--film", "a.gif", "--film-to-seed", 3, "--variation-seed", 4], "no --variation-seed"),
    ],
)
def test_what_makes_no_film_is_refused_and_leaves_nothing(
    draw: Run, words: list[object], message: str
) -> None:
    result = draw("a", "-o", "a.png", *words)
    assert result.code == 2
    assert message in result.stderr
    assert not list(Path().glob("a.*"))


def test_vectors_go_along_their_circles_and_stay_as_long() -> None:
    low = normalize(torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    high = normalize(low.roll(1, 1) + 0.1 * low.roll(2, 1), dim=-1)
    high[:, 0] = low[:, 0]  # as every prompt's first
    assert torch.equal(on_the_way(0.0, low, high), low)
    torch.testing.assert_close(on_the_way(1.0, low, high), high)
    before = low
    for share in (0.25, 0.5, 0.75, 1.0):
        now = on_the_way(share, low, high)
        torch.testing.assert_close(now.norm(dim=-1), torch.ones(1, 5))
        step = torch.acos((now * before).sum(-1).clamp(-1, 1))
        whole = torch.acos((low * high).sum(-1).clamp(-1, 1))
        torch.testing.assert_close(step, whole / 4, atol=2e-3, rtol=0)
        before = now
