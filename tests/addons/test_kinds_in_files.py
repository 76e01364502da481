"""LoRAs of every kind as files: the same weights under every name, every tensor accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.addons.apply import applied_loras, at_step, open_with_addons, with_loras
from sdscratch.addons.lora import open_lora
from sdscratch.addons.requests import parse_lora
from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.errors import CheckpointError
from support.checkpoints import TINY
from support.loras import changes, kohya_name, targets, write_lora

ALL = {f"{weight.part} {weight.name}": weight for weight in weights(TINY)}
LINEAR = ALL["unet down.1.1.block.cross_attention.key.weight"]  # [16, 32]
CONV = ALL["unet down.1.0.conv1.weight"]  # [16, 16, 3, 3]
TEXT = ALL["text layers.1.expand.weight"]  # [64, 32]
NORM, NORM_BIAS = ALL["unet down.1.0.norm1.weight"], ALL["unet down.1.0.norm1.bias"]
CONV_BIAS = ALL["unet down.1.0.conv1.bias"]
TOKENS = ALL["text tokens.weight"]


def random(*shape: int, seed: int = 0, size: float = 0.3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size


def loha(shape: tuple[int, ...]) -> dict[str, Tensor]:
    sides = (shape[0], torch.Size(shape[1:]).numel())
    tensors = {f"hada_w{n}_a": random(sides[0], 3, seed=n) for n in (1, 2)}
    return tensors | {f"hada_w{n}_b": random(3, sides[1], seed=n + 2) for n in (1, 2)} | alpha(1.5)


def lokr(shape: tuple[int, ...]) -> dict[str, Tensor]:
    second = (shape[0] // 4, 2), (2, torch.Size(shape[1:]).numel() // 2)
    return {
        "lokr_w1": random(4, 2),
        "lokr_w2_a": random(*second[0]),
        "lokr_w2_b": random(*second[1]),
    } | alpha(1.0)


def alpha(value: float) -> dict[str, Tensor]:
    return {"alpha": torch.tensor(value)}


def expected(kind: str, tensors: dict[str, Tensor], weight: Tensor) -> Tensor:
    """What becomes of a weight, by the plain formulas."""
    w = weight.double()
    t = {name: tensor.double() for name, tensor in tensors.items()}
    if kind == "LoHa":
        return w + 0.5 * (t["hada_w1_a"] @ t["hada_w1_b"] * (t["hada_w2_a"] @ t["hada_w2_b"])).view(w.shape)
    if kind == "LoKr":
        return w + 0.5 * torch.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"]).view(w.shape)
    if kind == "full":
        return w + t["diff"]
    if kind == "OFT":
        rotated = []
        for block, rows in zip(t["oft_blocks"], w.flatten(1).split(4), strict=True):
            skew, one = block - block.T, torch.eye(4, dtype=torch.float64)
            rotated.append(((one + skew) @ torch.linalg.inv(one - skew)).T @ rows)
        return torch.cat(rotated).view(w.shape)
    assert kind == "(IA)³"
    return w * (1 + t["weight"].view(-1, *[1] * (w.dim() - 1)))


MAKERS: dict[str, Callable[[tuple[int, ...]], dict[str, Tensor]]] = {
    "LoHa": loha,
    "LoKr": lokr,
    "full": lambda shape: {"diff": random(*shape)},
    "OFT": lambda shape: {"oft_blocks": random(shape[0] // 4, 4, 4)},
    "(IA)³": lambda shape: {"weight": random(shape[0], 1), "on_input": torch.tensor(False)},
}


def ldm(weight: Weight) -> str:
    return weight.ldm.removeprefix("model.diffusion_model.").removesuffix(".weight")


def diffusers(weight: Weight) -> str:
    return weight.diffusers.partition("/")[2].removesuffix(".weight")


# How tools name a module of the U-Net.
SPELLINGS: dict[str, Callable[[Weight], str]] = {
    "kohya": kohya_name,
    "kohya, LDM's names": lambda weight: f"lora_unet_{ldm(weight).replace('.', '_')}",
    "LyCORIS": lambda weight: f"lycoris_{diffusers(weight).replace('.', '_')}",
    "diffusers": lambda weight: f"unet.{diffusers(weight)}",
    "PEFT": lambda weight: f"base_model.model.{diffusers(weight)}",
    "ComfyUI": lambda weight: f"diffusion_model.{ldm(weight)}",
}


def spelled(made: dict[Weight, dict[str, Tensor]], name: Callable[[Weight], str]) -> dict[str, Tensor]:
    return {
        f"{name(w)}.{role}": tensor.clone() for w, tensors in made.items() for role, tensor in tensors.items()
    }


@pytest.fixture
def model(tiny_model: Path) -> ModelFiles:
    return open_model(tiny_model)


def add(model: ModelFiles, path: Path, items: str = "") -> ModelFiles:
    return with_loras(model, [parse_lora(f"{path}{items}")])


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_is_the_same_under_every_name(
    tmp_path: Path, model: ModelFiles, kind: str, spelling: str
) -> None:
    made = {weight: MAKERS[kind](weight.shape) for weight in (LINEAR, CONV)}
    path = tmp_path / "addon.safetensors"
    save_file(spelled(made, SPELLINGS[spelling]), path)
    changed = add(model, path)
    for weight in weights(TINY):
        own, found = model.read(weight), changed.read(weight)
        if weight in made:
            torch.testing.assert_close(
                found.double(), expected(kind, made[weight], own), atol=1e-6, rtol=1e-5
            )
        else:
            assert torch.equal(found, own)


@pytest.mark.parametrize(
    "prefix", ["lora_te_", "lora_te1_", "text_encoder.", "lycoris_te_", "text_encoders.clip_l.transformer."]
)
def test_the_text_encoder_has_its_names_too(tmp_path: Path, model: ModelFiles, prefix: str) -> None:
    name = diffusers(TEXT) if prefix.endswith(".") else diffusers(TEXT).replace(".", "_")
    made = loha(TEXT.shape)
    path = tmp_path / "addon.safetensors"
    save_file({f"{prefix}{name}.{role}": tensor for role, tensor in made.items()}, path)
    found = add(model, path).read(TEXT)
    torch.testing.assert_close(found.double(), expected("LoHa", made, model.read(TEXT)), atol=1e-6, rtol=1e-5)


def test_biases_norms_and_bundles_beside_a_lora_are_taken(tmp_path: Path, model: ModelFiles) -> None:
    made = changes(targets())
    path = write_lora(tmp_path / "lora.safetensors", made)
    from safetensors.torch import load_file

    more = {
        f"{kohya_name(NORM)}.w_norm": random(16), f"{kohya_name(NORM)}.b_norm": random(16, seed=1),
        f"{kohya_name(CONV)}.diff_b": random(16, seed=2),
        f"{kohya_name(TOKENS)}.diff": random(*TOKENS.shape, seed=3),
        "bundle_emb.zorb.string_to_param.*": random(2, 32),
    }  # fmt: skip
    save_file(load_file(path) | more, path)
    changed = add(model, path, ":0.5")
    deltas = {weight: change.delta(weight) for weight, change in made.items()}
    deltas |= {NORM: random(16), NORM_BIAS: random(16, seed=1), CONV_BIAS: random(16, seed=2)}
    deltas |= {TOKENS: random(*TOKENS.shape, seed=3)}
    for weight in weights(TINY):
        own = model.read(weight)
        wanted = own + 0.5 * deltas[weight] if weight in deltas else own
        torch.testing.assert_close(changed.read(weight), wanted, atol=1e-6, rtol=1e-5)
    (lora,) = applied_loras(changed)
    assert [(each.name, each.count) for each in lora.lora.embeddings] == [("zorb", 2)]


@pytest.mark.parametrize(
    "key", ["dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.default.weight"]
)
def test_dora_has_the_lengths_of_its_rows_or_columns(tmp_path: Path, model: ModelFiles, key: str) -> None:
    for weight in (LINEAR, CONV):
        made = changes([weight])
        path = write_lora(tmp_path / "lora.safetensors", made)
        from safetensors.torch import load_file

        whole = (model.read(weight) + made[weight].delta(weight)).double()
        sides = [0] if key != "dora_scale" else [0, 1]
        for side in sides:
            shape = [count if axis == side else 1 for axis, count in enumerate(weight.shape)]
            lengths = random(weight.shape[side]).abs() + 0.5
            save_file(
                load_file(path) | {f"{kohya_name(weight)}.{key}": lengths.view(shape)},
                tmp_path / "d.safetensors",
            )
            norm = whole.transpose(0, side).flatten(1).norm(dim=1).view(shape)
            wanted = whole * (1 + 0.6 * (lengths.double().view(shape) / norm - 1))
            found = add(model, tmp_path / "d.safetensors", ":0.6").read(weight)
            torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-5)


def test_weights_of_text_encoder_unet_and_blocks_are_apart(tmp_path: Path, model: ModelFiles) -> None:
    made = changes(targets())
    path = write_lora(tmp_path / "ink.safetensors", made)
    numbers = [0.1 * index for index in range(26)]
    changed = add(model, path, f":0.5:-0.8:lbw={','.join(map(str, numbers))}")
    for weight, change in made.items():
        inner = weight.ldm.removeprefix("model.diffusion_model.").split(".")
        block = {"input_blocks": 1, "output_blocks": 14}.get(inner[0])
        index = 13 if inner[0] == "middle_block" else None if block is None else block + int(inner[1])
        strength = (
            0.5 * numbers[0] if weight.part == "text" else -0.8 * (1 if index is None else numbers[index])
        )
        wanted = model.read(weight) + strength * change.delta(weight)
        torch.testing.assert_close(changed.read(weight), wanted, atol=1e-6, rtol=1e-5)
    record = changed.changes[0].record()
    assert (record["name"], record["weight"], record["unet_weight"]) == ("ink", 0.5, -0.8)
    assert json.loads(json.dumps(record)) == record


def test_at_a_step_only_what_is_active_then_changes_the_unet(tmp_path: Path, model: ModelFiles) -> None:
    first, second = changes(targets()[-3:]), changes(targets()[-3:], seed=1)
    a, b = write_lora(tmp_path / "a.safetensors", first), write_lora(tmp_path / "b.safetensors", second)
    files = with_loras(model, [parse_lora(f"{a}:1:stop=2"), parse_lora(f"{b}:1:start=1")])
    names = [[change.name for change in at_step(files, step).changes] for step in range(4)]
    assert names == [["a"], ["a", "b"], ["b"], ["b"]]
    assert at_step(files, 1) is files


def test_a_file_that_fits_in_part_names_what_does_not(
    tmp_path: Path, model: ModelFiles, tiny_model: Path
) -> None:
    made = {LINEAR: lokr(LINEAR.shape), CONV: loha(CONV.shape)}
    good = spelled(made, kohya_name)
    path = tmp_path / "addon.safetensors"
    strays = {
        "lora_unet_up_blocks_9_conv.lokr_w1": random(4, 2),
        "lora_unet_mid_block_attentions_0_proj_in.other": random(1),
    }
    for name, tensor in strays.items():
        save_file(good | {name: tensor}, path)
        with pytest.raises(CheckpointError, match=f"no place for {name.replace('.', chr(92) + '.')}"):
            open_lora(path, TINY)
    wrong = good | {f"{kohya_name(LINEAR)}.lokr_w2_b": random(2, 15)}
    save_file(wrong, path)
    with pytest.raises(CheckpointError, match=r"LoKr of lokr_w1 F32 \[4, 2\], .* does not fit \[16, 32\]"):
        open_with_addons(tiny_model, lora=str(path))


def test_ia3_that_says_the_other_side_is_refused_when_it_is_read(tmp_path: Path, model: ModelFiles) -> None:
    path = tmp_path / "addon.safetensors"
    save_file(spelled({LINEAR: {"weight": random(16), "on_input": torch.tensor(True)}}, kohya_name), path)
    with pytest.raises(CheckpointError, match="it scales 16 inputs of 32"):
        add(model, path).read(LINEAR)


def test_a_bundled_embedding_of_another_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "addon.safetensors"
    tensors = spelled({CONV: loha(CONV.shape)}, kohya_name)
    save_file(tensors | {"bundle_emb.zorb.string_to_param.*": random(2, 1024)}, path)
    with pytest.raises(
        CheckpointError, match=r"the embedding zorb of 1024 .* Stable Diffusion 2\.x; .* have 32"
    ):
        open_lora(path, TINY)
    save_file(tensors | {"bundle_emb.zorb.a": random(2, 32), "bundle_emb.zorb.b": random(2, 32)}, path)
    with pytest.raises(CheckpointError, match="holds 2 tensors"):
        open_lora(path, TINY)
