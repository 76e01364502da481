"""The stand-in for a GPU catches what a GPU would refuse or wait for, and names the line."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import inference_mode  # the stand-in takes no_grad in its place

from support import standin
from support.standin import CROSSINGS, GPU, PACKAGE, Forbidden, standing_in

ACTS = """
import torch
import torch.nn.functional as F

def mixed_product(x, w): return x @ w.T
def mixed_linear(x, w): return F.linear(x, w)
def mixed_convolution(x, w): return F.conv2d(x[None, None], w[None, None])
def mixed_embedding(x, w): return F.embedding(torch.zeros(2, dtype=torch.long), x)
def mixed_sum(x, w): return x + w
def mixed_concatenation(x, w): return torch.cat([x, w])
def mixed_index(x, w): return x[torch.tensor([0, 1])]
def mixed_in_place(x, w): return w.add_(x)
def mixed_norm(x, w): return F.layer_norm(x, (3,), w[0], w[0])
def mixed_where(x, w): return torch.where(w > 0, x, x)
def item(x, w): return x.sum().item()
def to_float(x, w): return float(x.sum())
def branch(x, w): return 1 if (x > 0).all() else 0
def equality(x, w): return torch.equal(x, x)
def places(x, w): return x.nonzero()
def chosen(x, w): return x[x > 0]
def cpu(x, w): return x.cpu()
def to_cpu(x, w): return x.to("cpu", torch.float64)
def into_cpu(x, w): return w.copy_(x)
def array(x, w): return x.numpy()
def numbers(x, w): return x.tolist()
def wrong_generator(x, w): return torch.randn(3, device=x.device, generator=torch.Generator())
def no_generator(x, w): return torch.randn_like(x)
def dropped(x, w): return F.dropout(x, 0.5, training=True)
"""
DOUBLES = """
import torch

def created(x): return torch.zeros(3, dtype=torch.float64, device=x.device)
def converted(x): return x.double()
def moved(x): return torch.zeros(3, dtype=torch.float64).to(x.device)
def told(x): return torch.tensor([1.0], dtype=torch.float64, device=x.device)
def on_the_way(x): return x.to("cpu", torch.float64)
"""
FINE = """
import torch
import torch.nn.functional as F

def scalar(x): return x * torch.tensor(2.0, dtype=torch.float64) + torch.tensor(1.0)
def shapes(x): return x if x.shape[0] > 1 and x.dtype == torch.float32 else x[:1]
def own_generator(x): return torch.randn(3, device=x.device, generator=torch.Generator(x.device))
def upload(x): return x + torch.zeros(2, 3).to(x.device)
def attention(x): return F.scaled_dot_product_attention(x[None], x[None], x[None])
def quiet(x): return F.dropout(x, 0.5, training=False)
def on_the_cpu(x): return float(torch.ones(3).sum()) + torch.zeros(2).numpy().sum()
"""


def as_project(code: str, folder: Path, patch: pytest.MonkeyPatch, name: str = "acts.py") -> ModuleType:
    """Code as a file of the project's."""
    file = folder / name
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("acts", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    patch.setattr(standin, "PACKAGE", folder)
    return module


def names_of(code: str) -> list[str]:
    return re.findall(r"^def (\w+)", code, re.MULTILINE)


def line_of(code: str, name: str) -> int:
    return next(number for number, line in enumerate(code.splitlines(), 1) if line.startswith(f"def {name}("))


def x() -> torch.Tensor:
    return torch.zeros(2, 3, device=GPU)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", names_of(ACTS))
def test_each_act_is_caught_and_its_line_is_named(
    name: str, inference: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = getattr(as_project(ACTS, tmp_path, monkeypatch), name)
    with (
        pytest.raises(Forbidden, match=rf"acts\.py:{line_of(ACTS, name)} in {name}"),
        standing_in("cuda"),
        inference_mode(inference),
    ):
        act(x(), torch.zeros(2, 3))


@pytest.mark.parametrize("name", names_of(DOUBLES))
def test_what_apple_lacks_is_caught_there_and_there_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = getattr(as_project(DOUBLES, tmp_path, monkeypatch), name)
    with standing_in("mps"), pytest.raises(Forbidden, match=rf"{line_of(DOUBLES, name)} in {name}.*float64"):
        act(x())
    if name != "on_the_way":  # which copies to the CPU besides
        with standing_in("cuda"):
            act(x())


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("name", names_of(FINE))
def test_what_a_gpu_does_gladly_passes(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = getattr(as_project(FINE, tmp_path, monkeypatch), name)
    with standing_in(kind), inference_mode():
        act(x())


CAPTURED = {
    "upload": lambda x: x + torch.zeros(2, 3).to(GPU),
    "numbers": lambda x: x * torch.tensor([1.0, 2.0, 3.0], device=GPU),
    "download": lambda x: x.cpu(),
    "noise": lambda x: x + torch.randn(3, device=GPU, generator=torch.Generator(GPU)),
    "memory": lambda x: x * (1 if torch.cuda.mem_get_info() else 2),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_what_no_graph_can_hold_is_caught_while_recording(name: str) -> None:
    with standing_in("cuda") as mode, pytest.raises(Forbidden):
        mode.recorder(GPU)(lambda: (CAPTURED[name](x()),))


@pytest.mark.parametrize("change", ["operator", "number", "shape", "length"])
def test_a_computation_that_is_another_at_the_next_run_is_caught(change: str) -> None:
    calls = 0

    def compute() -> tuple[torch.Tensor, ...]:
        nonlocal calls
        calls += 1
        late = calls > 2
        changed: dict[str, Callable[[], torch.Tensor]] = {
            "operator": lambda: x().exp() if late else x().sin(),
            "number": lambda: x() * (3.0 if late else 2.0),
            "shape": lambda: x()[: 1 if late else 2].exp(),
            "length": lambda: x().exp().exp() if late else x().exp(),
        }
        return (changed[change](),)

    with standing_in("cuda") as mode, pytest.raises(Forbidden, match="not what ran before"):
        mode.recorder(GPU)(compute)


def test_a_computation_that_stays_itself_is_recorded_and_played() -> None:
    with standing_in("cuda") as mode:
        play, (output,) = mode.recorder(GPU)(lambda: (x().exp() * 2,))
        play()
    assert output.is_meta
    assert (mode.recordings, mode.playings) == (1, 1)


def test_a_crossing_gives_numbers_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = as_project(
        "def crossing(x): return x.cpu(), bool(x.isfinite().all())", tmp_path, monkeypatch
    )
    place = ("acts.py", "crossing")
    monkeypatch.setitem(CROSSINGS, place, standin.Crossing("a test", True))
    with standing_in("cuda") as mode, inference_mode():
        numbers, finite = module.crossing(x())
    assert (numbers.device.type, numbers.shape, finite) == ("cpu", (2, 3), True)
    assert mode.reads == {place: 2}


def test_every_crossing_is_a_function_that_there_is() -> None:
    for file, name in CROSSINGS:
        assert re.search(rf"^ *def {name}\(", (PACKAGE / file).read_text(), re.MULTILINE), (file, name)


def test_outside_nothing_is_changed() -> None:
    before = torch.Generator, torch.tensor, torch.Tensor.numpy
    with standing_in("cuda"):
        assert torch.Generator is not before[0]
    assert (torch.Generator, torch.tensor, torch.Tensor.numpy) == before
    assert "support.standin" in sys.modules
