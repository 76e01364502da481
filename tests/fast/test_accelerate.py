"""How a GPU runs the U-Net, on a CPU that stands in for it: recordings, compiling, attention's backends."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from sdscratch.bench.random_model import random_model
from sdscratch.device import choose
from sdscratch.fast import accelerate as module
from sdscratch.fast.accelerate import accelerate
from sdscratch.fast.backends import BACKENDS, attention_shape, attention_times, in_order
from sdscratch.fast.compute import Outputs
from sdscratch.fast.graphs import Recorded, cuda_recorder
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.images import read_picture
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import SD1, UNetConfig
from sdscratch.models.unet import UNet
from support.checkpoints import TINY
from support.controls import PLACES, FakeControl

CPU = torch.device("cpu")
OPTIONS = {"width": 64, "height": 64, "steps": 3, "seed": 5}


class Tape:
    """Stands in for CUDA graphs: at each playing, what is computed is written where it was when recorded."""

    def __init__(self) -> None:
        self.recordings = self.playings = 0

    def record(self, compute: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
        self.recordings += 1
        held = compute()

        def play() -> None:
            self.playings += 1
            for kept, new in zip(held, compute(), strict=True):
                kept.copy_(new)

        for tensor in held:
            tensor.zero_()  # a graph computes nothing while it is recorded
        return play, held


def double(x: Tensor, y: Tensor | None = None) -> Outputs:
    return x * 2 + (0 if y is None else y), x + 1


def test_a_recording_plays_what_it_is_given_and_its_results_stay() -> None:
    tape = Tape()
    recorded = Recorded(double, tape.record)
    inputs = [torch.full((2, 3), value) for value in (1.0, 2.0)]
    results = [recorded(x) for x in inputs]
    for x, result in zip(inputs, results, strict=True):
        assert all(map(torch.equal, result, double(x)))
    assert (tape.recordings, tape.playings) == (1, 2)


def test_every_shape_and_precision_is_recorded_once() -> None:
    tape = Tape()
    recorded = Recorded(double, tape.record)
    x = torch.ones(2, 3)
    for inputs in ((x,), (x[:1],), (x.double(),), (x, x), (x, None), (x,)):
        assert all(map(torch.equal, recorded(*inputs), double(*inputs)))
    assert tape.recordings == 5


def test_what_cannot_be_recorded_runs_as_it_is_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(compute: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    caplog.set_level(logging.INFO, "sdscratch")
    recorded = Recorded(double, refuse)
    for _ in range(2):
        assert torch.equal(recorded(torch.ones(2))[0], torch.full((2,), 2.0))
    (message,) = caplog.messages
    assert message.endswith("launched by itself: operation not permitted when stream is capturing")


def test_a_cuda_graph_is_recorded_after_a_warm_up_on_a_stream_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = SimpleNamespace(replay=lambda: None)
    now: list[object] = []  # the contexts that are open
    happened: list[tuple[object, ...]] = []

    @contextmanager
    def context(name: object) -> Iterator[None]:
        now.append(name)
        yield
        now.pop()

    def stream(name: str) -> SimpleNamespace:
        return SimpleNamespace(
            name=name, wait_stream=lambda other: happened.append((name, "waits", other.name))
        )

    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: context(stream.name))
    monkeypatch.setattr(torch.cuda, "device", context)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: context("recording"))

    def compute() -> Outputs:
        happened.append(tuple(now))
        return (torch.ones(1),)

    device = torch.device("cuda", 1)
    play, (output,) = cuda_recorder(device)(compute)
    assert play is graph.replay
    assert output.item() == 1.0
    warm_up = [(device, "side")] * 3
    assert happened == [
        ("side", "waits", "main"), *warm_up, ("main", "waits", "side"), (device, "recording"),
    ]  # fmt: skip


@pytest.mark.parametrize("deep_cache", [1, 2])
def test_a_recorded_u_net_draws_the_same_pictures(
    deep_cache: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(str(tiny_model), device="cpu", dtype="float32")
    tape = Tape()
    monkeypatch.setattr(module, "compiled", lambda compute: Recorded(compute, tape.record))
    fast = load(str(tiny_model), device="cpu", dtype="float32", compile=True)
    for prompt in ("a dog", "a red cat"):
        one, other = (
            np.asarray(pipeline.txt2img(prompt, deep_cache=deep_cache, cfg_interval="1:", **OPTIONS))
            for pipeline in (plain, fast)
        )
        assert np.array_equal(one, other)
    # guided and not, each with deep features and without where they are cached; of both pictures together
    assert tape.recordings == (2 if deep_cache == 1 else 3)
    assert tape.playings == 6


def test_recordings_go_with_the_network_that_they_were_made_of(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: compute)
    placement = replace(choose("cpu", "float32"), compiled=True)
    with Pipeline(load(str(tiny_model), device="cpu").files, placement) as pipeline:
        first = pipeline.sampling.unet.computation(deep=False)
        assert pipeline.sampling.unet.computation(deep=False) is first
        assert pipeline.sampling.unet.computation(deep=True) is not first
    assert pipeline.sampling.unet.computation(deep=False) is not first


# --- Compiling -------------------------------------------------------------------------------------------


def test_what_cannot_be_compiled_runs_as_it_is_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Outputs:
        raise OSError("no compiler was found\nand so on")

    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: broken)
    run = accelerate(double, choose("cpu", "float32", compiled=True), SD1.unet)
    for _ in range(2):
        assert torch.equal(run(torch.ones(2))[0], torch.full((2,), 2.0))
    assert caplog.messages == ["the U-Net could not be compiled, and runs as it is: no compiler was found"]


@pytest.mark.full
def test_a_compiled_u_net_draws_the_same_picture(tiny_model: Path, tmp_path: Path) -> None:
    # in a process of its own: the compiler's imports warn, and a warning here is an error
    words = ["-m", str(tiny_model), "--size", "64x64", "--steps", "2", "--seed", "5", "--device", "cpu"]
    pictures = []
    for more in ([], ["--compile"]):
        out = tmp_path / f"{len(more)}.png"
        command = [sys.executable, "-m", "sdscratch", "txt2img", "a dog", *words, "--dtype", "float32"]
        done = subprocess.run([*command, *more, "-o", str(out)], capture_output=True, text=True, check=True)
        assert "could not be compiled" not in done.stderr
        pictures.append(np.asarray(read_picture(out), dtype=int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_an_error_of_what_was_compiled_well_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: compute)
    run = accelerate(double, choose("cpu", "float32", compiled=True), SD1.unet)
    run(torch.ones(2))
    with pytest.raises(RuntimeError, match="size"):
        run(torch.ones(2), torch.ones(3))


def test_a_cpu_runs_what_it_is_given() -> None:
    assert accelerate(double, choose("cpu", "float32"), SD1.unet) is double
    assert choose("cpu", "float32", compiled=True).reason.endswith(", compiled")


# --- Attention -------------------------------------------------------------------------------------------


def test_attention_is_measured_where_it_is_largest() -> None:
    assert attention_shape(SD1.unet, (2, 4, 64, 64)) == (2, 8, 4096, 40)
    small = UNetConfig(channels=64, multipliers=(1, 2, 4), attends=(False, True, True), heads=4)
    assert attention_shape(small, (1, 8, 15, 16)) == (1, 4, 8 * 8, 32)


def test_backends_that_refuse_are_left_out_of_the_times() -> None:
    times = attention_times(CPU, torch.float32, (1, 2, 16, 8), repeats=1)
    assert SDPBackend.MATH in times
    assert SDPBackend.CUDNN_ATTENTION not in times
    assert all(seconds > 0.0 for seconds in times.values())


def test_the_fastest_comes_first_but_not_by_chance() -> None:
    flash, cudnn, efficient, math = BACKENDS
    assert in_order({flash: 3.0, cudnn: 2.0, math: 9.0}) == (cudnn, flash, efficient, math)
    assert in_order({flash: 2.1, cudnn: 2.0, math: 9.0}) == (flash, cudnn, efficient, math)
    assert in_order({}) == BACKENDS


# --- Controls --------------------------------------------------------------------------------------------


def steered(unet: UNet, places: tuple[str, ...], seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    hint, context = torch.randn(1, 1, 8, 8, generator=generator), torch.randn(1, 7, 32, generator=generator)
    added = FakeControl(unet.config, hint, torch.rand(1, generator=generator), places)
    return Conditioning(context, controls=(added,))


def test_a_recording_is_played_with_other_hints_and_made_anew_for_other_controls() -> None:
    unet = random_model("", TINY).load("unet", "cpu", torch.float32)
    assert isinstance(unet, UNet)
    tape = Tape()
    recorded = Recorded(lambda *inputs: (unet(*inputs),), tape.record)
    x, times = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    with torch.inference_mode():
        for places, seed in ((PLACES, 0), (PLACES, 1), (("skips",), 1), (PLACES, 2)):
            told = steered(unet, places, seed)
            assert torch.equal(recorded(x, times, told)[0], unet(x, times, told))
        plain = Conditioning(told.context)
        assert torch.equal(recorded(x, times, plain)[0], unet(x, times, plain))
    assert (tape.recordings, tape.playings) == (3, 5)
