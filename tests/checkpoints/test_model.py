"""open_model: every form of a model gives the same weights; what is no complete model is refused by name."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.checkpoints.layouts import PARTS, weights
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.checkpoints.shapes import SHAPES
from sdscratch.errors import CheckpointError, TokenizerError
from sdscratch.models.config import ModelConfig
from sdscratch.options import SD1_DEFAULTS, Defaults
from sdscratch.tensorfiles.reader import TensorFile
from support.checkpoints import (
    SMALLER,
    TINY,
    ema_tensors,
    ldm_extras,
    ldm_tensors,
    self_contained,
    tiny_tokenizer,
    write_ckpt,
    write_diffusers,
    write_ldm,
)

Tensors = dict[str, Tensor]


@pytest.fixture
def tensors() -> Tensors:
    return ldm_tensors()


@pytest.fixture
def tiny_is_sd1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that say nothing about their shape are taken for `TINY`."""
    monkeypatch.setattr("sdscratch.checkpoints.model.SHAPES", dict.fromkeys(SHAPES, TINY))


def assert_holds(model: ModelFiles, tensors: Mapping[str, Tensor], config: ModelConfig = TINY) -> None:
    """Every network that the model loads has exactly these weights."""
    for part in PARTS:
        state = model.load(part, "cpu", torch.float32).state_dict()
        for weight in weights(config):
            if weight.part == part:
                assert torch.equal(state[weight.name], tensors[weight.ldm].float().reshape(weight.shape)), (
                    weight.ldm
                )


# Every form


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def flat_attention(tensors: Tensors) -> Tensors:
    return {
        name: tensor.flatten(1) if ".attn_1." in name and tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
    }


def float_positions(tensors: Tensors) -> Tensors:
    return tensors | {"cond_stage_model.transformer.embeddings.position_ids": torch.arange(77.0)[None]}


SPELLINGS: dict[str, Callable[[Tensors], Tensors]] = {
    "as published": lambda tensors: tensors | ldm_extras(),
    "old CLIP layout": lambda tensors: float_positions(renamed(tensors, ".text_model.", ".")),
    "vae. in front": lambda tensors: renamed(tensors, "first_stage_model.", "vae."),
    "no VAE prefix": lambda tensors: renamed(tensors, "first_stage_model.", ""),
    "matrices in the VAE's attention": flat_attention,
    "half precision": lambda tensors: {name: tensor.half() for name, tensor in tensors.items()},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_single_files_of_every_spelling(tmp_path: Path, tensors: Tensors, spelling: str) -> None:
    stored = SPELLINGS[spelling](tensors)
    expected = (
        {name: tensor.half() for name, tensor in tensors.items()} if spelling == "half precision" else tensors
    )
    model = open_model(write_ldm(tmp_path / "model.safetensors", stored, self_contained()))
    assert (model.layout, model.config, model.name) == ("ldm", TINY, "model")
    assert_holds(model, expected)


@pytest.mark.usefixtures("tiny_is_sd1")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_lightning_checkpoints(tmp_path: Path, tensors: Tensors, legacy: bool) -> None:
    model = open_model(write_ckpt(tmp_path / "model.ckpt", tensors | ldm_extras(), legacy=legacy))
    assert_holds(model, tensors)
    assert {"epoch", "callbacks", "optimizer_states", "betas", "model_ema.decay"} <= set(model.dropped)


FOLDERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp16 names": {"variant": "fp16"},
    "non_ema names": {"variant": "non_ema"},
    "pickles": {"pickled": True},
    "pickles with fp16 names": {"pickled": True, "variant": "fp16"},
    "shards": {"shards": 3},
    "shards with fp16 names": {"shards": 2, "variant": "fp16"},
    "sharded pickles": {"shards": 2, "pickled": True},
    "attention as before diffusers 0.15": {"old_attention": True},
    "text encoder as transformers 5 names it": {"text_prefix": False},
}


@pytest.mark.parametrize("form", FOLDERS)
def test_diffusers_folders_of_every_form(tmp_path: Path, tensors: Tensors, form: str) -> None:
    model = open_model(write_diffusers(tmp_path / "folder", TINY, tensors, **FOLDERS[form]))
    assert (model.layout, model.config, model.name) == ("diffusers", TINY, "folder")
    assert_holds(model, tensors)
    assert model.dropped == ()


def test_another_shape(tmp_path: Path) -> None:
    tensors = ldm_tensors(SMALLER)
    for model in (
        open_model(write_ldm(tmp_path / "model.safetensors", tensors, self_contained(SMALLER))),
        open_model(write_diffusers(tmp_path / "folder", SMALLER, tensors)),
    ):
        assert model.config == SMALLER
        assert_holds(model, tensors, SMALLER)


def test_the_plain_weights_go_before_variants(tmp_path: Path, tensors: Tensors) -> None:
    write_diffusers(tmp_path / "folder", TINY, ldm_tensors(seed=5), variant="fp16")
    model = open_model(write_diffusers(tmp_path / "folder", TINY, tensors))
    assert_holds(model, tensors)


def test_averages_are_taken_only_when_asked_for(tmp_path: Path, tensors: Tensors) -> None:
    averages = ema_tensors()
    path = write_ldm(tmp_path / "model.safetensors", tensors | averages, self_contained())
    plain, averaged = open_model(path), open_model(path, ema=True)
    assert plain.has_ema
    assert averaged.has_ema
    assert_holds(plain, tensors)
    expected = ldm_tensors(seed=1)
    taken = {name: expected[name] if name.startswith("model.") else tensors[name] for name in tensors}
    assert_holds(averaged, taken)
    assert set(averages) <= set(plain.dropped)
    assert set(averaged.dropped) == {name for name in tensors if name.startswith("model.")}


# Loading


def test_a_network_is_ready_to_run_in_the_type_asked_for(tmp_path: Path, tensors: Tensors) -> None:
    model = open_model(write_ldm(tmp_path / "model.safetensors", tensors, self_contained()))
    network = model.load("decoder", "cpu", torch.bfloat16)
    assert not network.training
    for parameter in network.parameters():
        assert parameter.dtype == torch.bfloat16
        assert parameter.device.type == "cpu"
        assert not parameter.requires_grad


def test_only_what_is_asked_for_is_read(
    tmp_path: Path, tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = TensorFile.read

    def spy(file: TensorFile, name: str) -> Tensor:
        read.append(name)
        return original(file, name)

    monkeypatch.setattr(TensorFile, "read", spy)
    model = open_model(write_ldm(tmp_path / "model.safetensors", tensors | ema_tensors(), self_contained()))
    assert model.tokenizer is not None
    assert read == []
    model.load("text", "cpu", torch.float32)
    assert sorted(read) == sorted(weight.ldm for weight in weights(TINY) if weight.part == "text")


# What a model says about itself


def test_defaults_ride_in_the_metadata(tmp_path: Path, tensors: Tensors) -> None:
    wanted = {
        "width": 64,
        "height": 128,
        "steps": 20,
        "cfg_scale": 4,
        "sampler": "euler",
        "scheduler": "karras",
    }
    metadata = self_contained() | {"sdscratch.defaults": json.dumps(wanted)}
    model = open_model(write_ldm(tmp_path / "model.safetensors", tensors, metadata))
    assert model.defaults == Defaults(**wanted)  # type: ignore[arg-type]


def test_without_a_word_the_defaults_are_stable_diffusions(tmp_path: Path, tensors: Tensors) -> None:
    assert (
        open_model(write_ldm(tmp_path / "a.safetensors", tensors, self_contained())).defaults == SD1_DEFAULTS
    )


def test_a_folder_says_its_size_in_latents(tmp_path: Path, tensors: Tensors) -> None:
    folder = write_diffusers(tmp_path / "folder", TINY, tensors)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": 96}))
    assert open_model(folder).defaults == Defaults(width=768, height=768)


def test_velocity_prediction_is_read_from_a_folders_scheduler(tmp_path: Path, tensors: Tensors) -> None:
    folder = write_diffusers(tmp_path / "folder", TINY, tensors)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    assert open_model(folder).config.schedule.prediction == "v"


def test_the_hash_of_a_file_is_the_beginning_of_its_sha_256(tmp_path: Path, tensors: Tensors) -> None:
    path = write_ldm(tmp_path / "model.safetensors", tensors, self_contained())
    assert open_model(path).hash() == hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def test_the_hash_of_a_folder_changes_with_its_weights(tmp_path: Path) -> None:
    hashes = {
        open_model(write_diffusers(tmp_path / str(seed), TINY, ldm_tensors(seed=seed % 2))).hash()
        for seed in range(3)
    }
    assert len(hashes) == 2


# Tokenizers


def test_its_own_tokenizer_comes_with_a_file_and_with_a_folder(tmp_path: Path, tensors: Tensors) -> None:
    wanted = tiny_tokenizer().to_json()
    for path in (
        write_ldm(tmp_path / "model.safetensors", tensors, self_contained()),
        write_diffusers(tmp_path / "folder", TINY, tensors, tokenizer=tiny_tokenizer()),
    ):
        assert open_model(path).tokenizer.to_json() == wanted


@pytest.mark.parametrize("where", ["beside", "user"])
def test_a_tokenizer_is_found_beside_the_file_or_in_the_users_folder(
    tmp_path: Path, tensors: Tensors, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = {"beside": tmp_path / "models", "user": tmp_path / "data" / "sdscratch" / "tokenizer"}[where]
    (tmp_path / "models").mkdir()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text(tiny_tokenizer().to_files()[name])
    metadata = {"sdscratch.config": TINY.to_json()}
    model = open_model(write_ldm(tmp_path / "models" / "model.safetensors", tensors, metadata))
    assert model.own_tokenizer is None
    assert model.tokenizer.encode("a dog") == tiny_tokenizer().encode("a dog")


def test_a_model_without_any_tokenizer_says_how_to_name_one(tmp_path: Path, tensors: Tensors) -> None:
    model = open_model(write_ldm(tmp_path / "m.safetensors", tensors, {"sdscratch.config": TINY.to_json()}))
    with pytest.raises(TokenizerError, match="without its tokenizer; name it with --tokenizer"):
        _ = model.tokenizer


def test_a_given_tokenizer_is_read_at_once_and_goes_before_the_models_own(
    tmp_path: Path, tensors: Tensors
) -> None:
    path = write_ldm(tmp_path / "model.safetensors", tensors, self_contained())
    with pytest.raises(TokenizerError, match=r"no tokenizer at .*nowhere"):
        open_model(path, tokenizer=str(tmp_path / "nowhere"))
    other = type(tiny_tokenizer()).from_merges([("d", "o")])
    (tmp_path / "other").mkdir()
    for name, text in other.to_files().items():
        (tmp_path / "other" / name).write_text(text)
    assert open_model(path, tokenizer=str(tmp_path / "other")).tokenizer.size == other.size


def test_a_broken_tokenizer_inside_can_be_replaced(tmp_path: Path, tensors: Tensors) -> None:
    path = write_ldm(tmp_path / "model.safetensors", tensors, self_contained() | {"sdscratch.tokenizer": "{"})
    with pytest.raises(TokenizerError, match="give one with --tokenizer"):
        _ = open_model(path).tokenizer
    for name, text in tiny_tokenizer().to_files().items():
        (tmp_path / name).write_text(text)
    assert open_model(path, tokenizer=str(tmp_path)).tokenizer.to_json() == tiny_tokenizer().to_json()


def test_a_tokenizer_with_more_ids_than_the_text_encoder_knows_is_refused(
    tmp_path: Path, tensors: Tensors
) -> None:
    large = type(tiny_tokenizer()).from_merges(
        [("a", "b"), *[(chr(97 + n // 26), chr(97 + n % 26)) for n in range(60)]]
    )
    metadata = self_contained() | {"sdscratch.tokenizer": large.to_json()}
    with pytest.raises(TokenizerError, match="its text encoder knows 528"):
        _ = open_model(write_ldm(tmp_path / "model.safetensors", tensors, metadata)).tokenizer


# What is no complete model


def without(tensors: Tensors, *prefixes: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}


BROKEN: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "one missing": (
        lambda tensors: without(tensors, "first_stage_model.quant_conv.bias"),
        r"lacks first_stage_model.quant_conv.bias; the model is incomplete",
    ),
    "many missing": (
        lambda tensors: without(tensors, "model.diffusion_model.output_blocks."),
        r"lacks (\S+output_blocks\S+, ){2}\S+ and \d+ more tensors; the model is incomplete",
    ),
    "unknown": (
        lambda tensors: tensors | {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(2, 2)},
        r"holds model.diffusion_model.label_emb.0.0.weight, which",
    ),
    "misshapen": (
        lambda tensors: tensors | {"model.diffusion_model.out.2.bias": torch.zeros(5)},
        r"holds model.diffusion_model.out.2.bias as F32 \[5\], expected \[4\]",
    ),
    "of whole numbers": (
        lambda tensors: tensors | {"model.diffusion_model.out.2.bias": torch.zeros(4, dtype=torch.int32)},
        r"out.2.bias as I32 \[4\]",
    ),
    "twice": (
        lambda tensors: tensors | {"quant_conv.bias": torch.zeros(8)},
        r"the same weight twice, as .*quant_conv.bias",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_model_that_is_not_what_it_should_be_is_refused_by_name(
    tmp_path: Path, tensors: Tensors, fault: str
) -> None:
    change, message = BROKEN[fault]
    with pytest.raises(CheckpointError, match=message):
        open_model(write_ldm(tmp_path / "model.safetensors", change(tensors), self_contained()))


@pytest.mark.parametrize("key", ["sdscratch.config", "sdscratch.defaults"])
@pytest.mark.parametrize("text", ["{", "[1]", '{"unet": {"widths": 3}, "width": "wide"}', "[" * 100_000])
def test_broken_metadata_are_refused(tmp_path: Path, tensors: Tensors, key: str, text: str) -> None:
    with pytest.raises(CheckpointError, match=f"broken {key}"):
        open_model(write_ldm(tmp_path / "model.safetensors", tensors, self_contained() | {key: text}))


OTHERS = {
    "conditioner.embedders.1.model.ln_final.bias": "an SDXL model",
    "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": "a LoRA in kohya's layout",
    "first_stage_model.decoder.up.0.block.0.conv1.weight": "a VAE alone",
    "emb_params": "a textual inversion embedding",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=OTHERS[name]):
        open_model(write_ldm(tmp_path / "model.safetensors", {name: torch.zeros(3, 768)}))


def test_averages_that_are_not_there_cannot_be_taken(tmp_path: Path, tensors: Tensors) -> None:
    for path in (
        write_ldm(tmp_path / "model.safetensors", tensors, self_contained()),
        write_diffusers(tmp_path / "folder", TINY, tensors),
    ):
        with pytest.raises(CheckpointError, match="no moving averages"):
            open_model(path, ema=True)


# Broken folders


@pytest.fixture
def folder(tmp_path: Path, tensors: Tensors) -> Path:
    return write_diffusers(tmp_path / "folder", TINY, tensors, shards=2)


def test_a_folder_without_a_component_is_refused(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no vae/diffusion_pytorch_model\.safetensors"):
        open_model(folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no text_encoder/model\.safetensors"):
        open_model(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\0", "[" * 100_000])
def test_a_folder_with_a_broken_config_is_refused(folder: Path, content: str | None) -> None:
    path = folder / "vae" / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(CheckpointError, match=r"vae/config\.json"):
        open_model(folder)


def test_another_pipelines_folder_is_named(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"a StableDiffusionXLPipeline \(it has text_encoder_2\)"):
        open_model(folder)


INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"


@pytest.mark.parametrize(
    "target", ["../secret.safetensors", "/etc/passwd", "..", ".", "", "a/b", "\x1b[2J/x"]
)
def test_an_index_never_leads_out_of_its_folder(folder: Path, target: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["conv_in.bias"] = target
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="leads out of its folder") as caught:
        open_model(folder)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("table", [None, {}, [], {"a": 1}])
def test_an_index_that_maps_nothing_is_refused(folder: Path, table: object) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": table}))
    with pytest.raises(CheckpointError, match="maps no weights"):
        open_model(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="00002-of-00002"):
        open_model(folder)


@pytest.mark.parametrize("form", ["safetensors", "diffusers"])
def test_the_script_that_makes_checkpoints_makes_models(tmp_path: Path, form: str) -> None:
    script = Path(__file__).parents[1] / "support" / "make_checkpoint.py"
    arguments = [sys.executable, script, tmp_path / "made", "--size", "tiny", "--format", form]
    subprocess.run(arguments, check=True, capture_output=True)
    assert_holds(open_model(tmp_path / "made"), ldm_tensors())
