"""Every kind of LoRA gives the weights that the tools themselves computed."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdscratch.addons.kinds.kind import Operands
from sdscratch.addons.kinds.table import bias_changed, changed, fits, kinds_of, lacking
from support.shared import shared_path

ROLES = {"lora_up.weight": "up", "lora_down.weight": "down", "lora_mid.weight": "mid"}
# LyCORIS decides how a strength acts on DoRA and on rotations; but its merge divides LoHa's and LoKr's alpha
# twice, and where it refuses a case, SD.Next decides.
TWICE = ("loha_", "lokr_full_lr", "dora_loha_in", "dora_lokr_in")


@cache
def data() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    record = json.loads(shared_path("golden", "lora_kinds.json").read_text())
    with np.load(shared_path("golden", "lora_kinds.npz")) as arrays:
        return record, dict(arrays)


def expected(case: str, strength: str) -> np.ndarray:
    """The weight of the tool that is right."""
    _, arrays = data()
    if case.startswith("dora_lo") and strength != "1.0":
        return by_formula(case, float(strength))
    order = ("sdnext", "comfy") if case.startswith(TWICE) else ("lycoris", "sdnext", "comfy")
    names = (f"{case}/{tool}/{strength}/weight" for tool in order)
    return next(arrays[name] for name in names if name in arrays)


def by_formula(case: str, strength: float) -> np.ndarray:
    """V (1 + s (m / |V| - 1)), as LyCORIS would have it with alpha divided once: no tool does."""
    _, arrays = data()
    t = {key.rpartition("/")[2]: value for key, value in arrays.items() if key.startswith(f"{case}/in/")}
    if case == "dora_loha_in":
        delta = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    else:
        delta = np.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"])
    whole = arrays[f"{case}/W"] + delta * t["alpha"] / 2
    return whole * (1 + strength * (t["dora_scale"] / np.linalg.norm(whole, axis=0, keepdims=True) - 1))


def operands(case: str) -> Operands:
    _, arrays = data()
    prefix = f"{case}/in/"
    found = {
        key.removeprefix(prefix): torch.tensor(value)
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
    alpha = float(found.pop("alpha")) if "alpha" in found else None
    tensors = {ROLES.get(name, name.removesuffix(".weight") or name): value for name, value in found.items()}
    shapes = {role: tuple(value.shape) for role, value in tensors.items()}
    kinds = kinds_of(shapes)
    rank = kinds[0].rank(shapes)
    return Operands(tensors, alpha, alpha / rank if alpha and rank else 1.0)


def cases() -> list[str]:
    try:
        return [case["name"] for case in data()[0]["cases"]]
    except (pytest.skip.Exception, pytest.fail.Exception):  # the data is absent, which the one test then says
        return ["lora_linear"]


@pytest.mark.parametrize("strength", ["0.5", "1.0", "-0.7"])
@pytest.mark.parametrize("case", cases())
def test_a_weight_is_what_the_tools_make_of_it(case: str, strength: str) -> None:
    _, arrays = data()
    given, weight = operands(case), torch.tensor(arrays[f"{case}/W"])
    shapes = {role: tuple(value.shape) for role, value in given.tensors.items()}
    (kind,) = kinds_of(shapes)
    assert not lacking(kind, shapes.keys())
    assert fits(kind, shapes, tuple(weight.shape))
    found = changed(kind, given, weight, float(strength))
    assert found.shape == weight.shape
    close(found, expected(case, strength))
    if f"{case}/bias" in arrays:
        bias = bias_changed(given, torch.tensor(arrays[f"{case}/bias"]), float(strength))
        close(bias, arrays[f"{case}/comfy/{strength}/bias"])


def close(found: Tensor, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    size = max(1.0, float(np.abs(wanted).max()))
    assert float((found - torch.tensor(wanted)).abs().max()) <= 1e-6 * size
