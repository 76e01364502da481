"""What PEFT trains and saves gives the weights that PEFT itself merges."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdscratch.addons.apply import with_loras
from sdscratch.addons.requests import LoraRequest
from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.checkpoints.model import ModelFiles, open_model
from support.checkpoints import TINY

WEIGHTS = {weight.diffusers: weight for weight in weights(TINY)}
CHOSEN: dict[str, Weight] = {  # by its path in diffusers' U-Net
    weight.diffusers.removeprefix("unet/").removesuffix(".weight"): weight
    for weight in weights(TINY)
    if weight.part == "unet"
    and weight.name
    in (
        "down.1.1.block.cross_attention.key.weight",
        "down.1.1.block.self_attention.out.weight",
        "down.1.1.block.feed_forward.contract.weight",
        "down.1.0.conv1.weight",
        "down.4.0.skip.weight",
    )
}
TARGETS = r".*(to_k|to_out\.0|net\.2|conv1|conv_shortcut)"
OPTIONS: dict[str, dict[str, Any]] = {
    "LoraConfig": {"r": 3, "lora_alpha": 3, "init_lora_weights": False},
    "LoraConfig, DoRA": {"r": 3, "lora_alpha": 3, "init_lora_weights": False, "use_dora": True},
    "LoHaConfig": {"r": 3, "alpha": 3, "init_weights": False},
    "LoHaConfig, Tucker": {"r": 3, "alpha": 3, "init_weights": False, "use_effective_conv2d": True},
    "LoKrConfig": {"r": 2, "alpha": 2, "init_weights": False},
    "LoKrConfig, both": {"r": 1, "alpha": 1, "init_weights": False, "decompose_both": True},
    "LoKrConfig, Tucker": {"r": 2, "alpha": 2, "init_weights": False, "use_effective_conv2d": True},
    "IA3Config": {"init_ia3_weights": False, "feedforward_modules": r".*(net\.2)"},
}


def network(model: ModelFiles) -> nn.Module:
    """The chosen layers alone, under diffusers' paths, with the model's weights."""
    root = nn.Module()
    for path, weight in CHOSEN.items():
        *parents, leaf = path.split(".")
        place = root
        for name in parents:
            if not hasattr(place, name):
                place.add_module(name, nn.Module())
            place = getattr(place, name)
        outputs, inputs, *kernel = weight.shape
        layer: nn.Conv2d | nn.Linear = (
            nn.Conv2d(inputs, outputs, kernel[0]) if kernel else nn.Linear(inputs, outputs)
        )
        layer.weight.data = model.read(weight).clone()
        bias = WEIGHTS.get(weight.diffusers.replace(".weight", ".bias"))
        assert layer.bias is not None
        layer.bias.data = torch.zeros(outputs) if bias is None else model.read(bias).clone()
        place.add_module(leaf, layer)
    return root


def adapted(model: ModelFiles, case: str, path: Path) -> dict[str, Tensor]:
    """PEFT's file of an adapter upon these layers, and the weights that it merges."""
    import peft

    torch.manual_seed(0)
    config = getattr(peft, case.partition(",")[0])(target_modules=TARGETS, **OPTIONS[case])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(network(model), config)
    for name, parameter in wrapped.named_parameters():
        if "magnitude" in name or "ia3" in name:
            parameter.data = parameter.data * (1 + 0.3 * torch.randn(parameter.shape))
    save_file({name: t.contiguous() for name, t in peft.get_peft_model_state_dict(wrapped).items()}, path)
    return dict(wrapped.merge_and_unload().state_dict())


@pytest.mark.parametrize("case", OPTIONS)
def test_a_file_of_pefts_is_merged_as_peft_does(tmp_path: Path, tiny_model: Path, case: str) -> None:
    model = open_model(tiny_model)
    expected = adapted(model, case, tmp_path / "adapter_model.safetensors")
    changed = with_loras(model, [LoraRequest(str(tmp_path / "adapter_model.safetensors"))])
    assert {name.removesuffix(".weight") for name in expected if name.endswith("weight")} == CHOSEN.keys()
    for name, wanted in expected.items():
        weight = WEIGHTS.get(f"unet/{name}")
        assert weight is not None or not wanted.any()  # a bias that only the test's layers have
        if weight is not None:
            found = changed.read(weight)
            assert name.endswith("bias") or not torch.equal(found, model.read(weight)), name
            torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
