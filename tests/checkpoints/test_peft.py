"""LoRAs in PEFT's own folders: as strong as PEFT's own merge makes them, or said to be unknown."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdscratch.addons.apply import applied_loras, with_loras
from sdscratch.addons.lora import Lora, open_lora
from sdscratch.addons.requests import LoraRequest
from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.peft import CONFIG, lora_name, peft_settings
from sdscratch.checkpoints.places import find_lora
from sdscratch.errors import CheckpointError
from support.checkpoints import TINY, ldm_tensors, self_contained, tiny_tokenizer, write_diffusers, write_ldm
from support.cli import sdscratch
from support.loras import changes, targets, write_lora

NETWORKS = {"unet": ["to_q", "to_v", "proj_in"], "text_encoder": ["q_proj", "v_proj", "fc1"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_diffusers(tmp_path_factory.mktemp("model") / "folder", TINY, tokenizer=tiny_tokenizer())


def network(folder: Path, part: str) -> torch.nn.Module:
    """diffusers' or transformers' network."""
    if part == "unet":
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel.from_pretrained(folder / part)  # type: ignore[no-any-return]
    from transformers import CLIPTextModel

    return CLIPTextModel.from_pretrained(folder / part)  # type: ignore[no-any-return]


def saved(folder: Path, part: str, path: Path, **config: Any) -> dict[str, torch.Tensor]:
    """Save a random LoRA as PEFT does; the weights as PEFT merges it when it is loaded again.

    (Where two patterns speak of a module the first counts, and saving sorts them.)
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    own = LoraConfig(**{"r": 4, "target_modules": NETWORKS[part], "init_lora_weights": False, **config})
    get_peft_model(network(folder, part), own).save_pretrained(path)
    model = PeftModel.from_pretrained(network(folder, part), str(path)).merge_and_unload()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


CONFIGS: dict[str, dict[str, Any]] = {
    "alpha": {"lora_alpha": 16},
    "less than the rank": {"lora_alpha": 1},
    "rslora": {"lora_alpha": 16, "use_rslora": True},
    "patterns": {
        "lora_alpha": 8,
        "rank_pattern": {"to_q": 2, "q_proj": 2},
        "alpha_pattern": {"to_q": 3, r".*\.1\..*to_v": 5, "^mid_block.*": 7, "layers.1.self_attn.q_proj": 3},
    },
    "patterns and rslora": {
        "lora_alpha": 8, "use_rslora": True, "rank_pattern": {"to_v": 8, "fc1": 2},
        "alpha_pattern": {"to_v": 2},
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # PEFT warns of transformers and of unused patterns
@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("file", [False, True])
def test_the_weights_are_those_of_pefts_own_merge(
    folder: Path, tmp_path: Path, part: str, name: str, file: bool
) -> None:
    merged = saved(folder, part, tmp_path / "ink", **CONFIGS[name])
    asked = tmp_path / "ink" / "adapter_model.safetensors" if file else tmp_path / "ink"
    model = with_loras(open_model(str(folder)), [LoraRequest(str(asked))])
    (applied,) = applied_loras(model)
    assert applied.lora.name == "ink"
    changed = 0
    for weight in weights(TINY):
        where, _, path = weight.diffusers.partition("/")
        if where != part:
            continue
        wanted = merged.get(path, merged.get(path.removeprefix("text_model.")))
        assert wanted is not None, weight.diffusers
        torch.testing.assert_close(model.read(weight), wanted.reshape(weight.shape), rtol=1e-5, atol=1e-6)
        changed += weight in applied.lora.modules
    assert changed > 5


def test_what_diffusers_notes_comes_before_a_config_beside_it(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"lora_alpha": 99}))
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "text_encoder.lora_alpha": 2})}
    path = tmp_path / "adapter_model.safetensors"
    assert peft_settings(path, metadata, "unet").alpha("unet.x") == 8
    assert peft_settings(path, metadata, "text").alpha("text_encoder.x") == 2
    assert peft_settings(path, {}, "text").alpha("x") == 99


def test_a_config_counts_for_the_file_that_it_is_saved_with(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"lora_alpha": 99}))
    assert peft_settings(tmp_path / "renamed.safetensors", {}, "unet").known
    (tmp_path / "adapter_model.safetensors").touch()
    assert not peft_settings(tmp_path / "another.safetensors", {}, "unet").known


def peft_lora(path: Path) -> Path:
    """PEFT's tensors of attention matrices, without any settings."""
    chosen = [weight for weight in targets() if ".to_q" in weight.diffusers]
    return write_lora(path, changes(chosen), "PEFT")


def apply(path: Path) -> Lora:
    lora = open_lora(path, TINY)
    weight: Weight = next(iter(lora.modules))
    lora.add(weight, torch.zeros(weight.shape), 1.0)
    lora.add(weight, torch.zeros(weight.shape), 1.0)
    return lora


def test_a_strength_that_nobody_knows_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = peft_lora(tmp_path / "ink.safetensors")
    with caplog.at_level(logging.WARNING, "sdscratch"):
        apply(path)
    (message,) = caplog.messages
    assert "ink.safetensors does not say how strong it is" in message
    assert CONFIG in message
    (tmp_path / CONFIG).write_text(json.dumps({"lora_alpha": 6, "r": 3}))
    caplog.clear()
    apply(path)
    assert caplog.messages == []


def test_kohyas_layout_without_an_alpha_is_no_riddle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = [weight for weight in targets() if ".to_q" in weight.diffusers]
    path = write_lora(tmp_path / "a.safetensors", changes(chosen))
    save_file({k: v for k, v in load_file(path).items() if not k.endswith(".alpha")}, path)
    apply(path)
    assert caplog.messages == []


def test_info_says_that_the_strength_is_unknown_or_what_it_is(tmp_path: Path) -> None:
    path = peft_lora(tmp_path / "adapter_model.safetensors")
    assert "unknown: PEFT keeps it" in sdscratch("info", path).stdout.decode()
    (tmp_path / CONFIG).write_text(json.dumps({"lora_alpha": 6, "r": 3}))
    for asked in (path, tmp_path):
        result = sdscratch("info", asked, "--json")
        assert json.loads(result.stdout)["lora"]["alphas"] == [6.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is broken"), ("[]", "no JSON object"), ("[" * 100_000, "is broken"),
        ('{"lora_alpha": "x"}', "alpha"), ('{"lora_alpha": NaN}', "alpha"),
        ('{"lora_alpha": true}', "alpha"), ('{"alpha_pattern": [1]}', "alpha"),
        ('{"alpha_pattern": {"a": "b"}}', "pattern"), ('{"alpha_pattern": {"(": 1}}', "pattern"),
        ('{"alpha_pattern": {"(a+)+$": 1}}', "pattern"), ('{"alpha_pattern": {".*.*.*.*x": 1}}', "pattern"),
        ('{"init_lora_weights": "pissa_niter_16"}', "changes the model's own weights"),
        (b"\xff\xfea", "UTF-16"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_one_sentence(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    path = peft_lora(tmp_path / "adapter_model.safetensors")
    (tmp_path / CONFIG).write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.process_time()
    with pytest.raises(CheckpointError, match=said) as caught:
        apply(path)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 5


def test_a_byte_order_mark_before_the_config_is_nothing(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_bytes(b"\xef\xbb\xbf" + json.dumps({"lora_alpha": 2}).encode())
    assert peft_settings(tmp_path / "adapter_model.safetensors", {}, "unet").alpha("x") == 2


def test_folders_are_found_by_name_and_those_of_several_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loras" / "ink").mkdir(parents=True)
    path = peft_lora(tmp_path / "loras" / "ink" / "adapter_model.safetensors")
    assert find_lora("ink") == Path("loras/ink/adapter_model.safetensors")
    assert find_lora(str(path.parent)) == path
    assert lora_name(path) == "ink"
    for part in ("unet", "text_encoder"):
        (tmp_path / "both" / part).mkdir(parents=True)
        (tmp_path / "both" / part / CONFIG).write_text("{}")
    with pytest.raises(CheckpointError, match="both/unet and both/text_encoder"):
        find_lora("both")
    with pytest.raises(CheckpointError, match="there is no LoRA loras"):
        find_lora("loras")


@pytest.mark.parametrize("prefix", ["lora_te1_", "lora_te_"])
def test_diffusers_own_conversion_to_kohyas_names_fits(tmp_path: Path, prefix: str) -> None:
    chosen = [weight for weight in targets() if ".to_q" in weight.diffusers or "q_proj" in weight.diffusers]
    made = changes(chosen)
    path = write_lora(tmp_path / "a.safetensors", made)
    save_file({key.replace("lora_te_", prefix): tensor for key, tensor in load_file(path).items()}, path)
    lora = open_lora(path, TINY)
    assert lora.modules.keys() == made.keys()
    weight = next(weight for weight in chosen if weight.part == "text")
    torch.testing.assert_close(
        lora.add(weight, torch.zeros(weight.shape), 1.0), made[weight].delta(weight), rtol=1e-4, atol=1e-5
    )


def test_cloneofsimos_numbers_are_named(tmp_path: Path) -> None:
    save_file({"unet:0:up": torch.zeros(8, 4), "unet:0:down": torch.zeros(4, 8)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is a LoRA of cloneofsimo's"):
        open_lora(tmp_path / "a.safetensors", TINY)


@pytest.mark.parametrize(
    ("gone", "said"),
    [("first_stage_model.", "VAE"), ("cond_stage_model.", "text encoder"), ("model.diffusion", "U-Net")],
)
def test_a_model_without_a_whole_part_says_which(tmp_path: Path, gone: str, said: str) -> None:
    tensors = {name: tensor for name, tensor in ldm_tensors().items() if not name.startswith(gone)}
    path = write_ldm(tmp_path / "part.safetensors", tensors, self_contained())
    with pytest.raises(CheckpointError, match=rf"part\.safetensors has no {said}, which .* take a copy"):
        open_model(str(path))
