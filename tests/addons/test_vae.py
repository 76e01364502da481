"""A VAE's file in every form takes the place of the model's own; one that is not for the model is named."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdscratch import load
from sdscratch.addons.apply import open_with_addons
from sdscratch.addons.vae import VAE_PARTS, open_vae
from sdscratch.checkpoints.convert import convert
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import weights
from sdscratch.checkpoints.model import open_model
from sdscratch.errors import CheckpointError
from support.checkpoints import (
    SMALLER,
    TINY,
    ldm_tensors,
    self_contained,
    tiny_tokenizer,
    write_diffusers,
    write_ldm,
)

PREFIX = "first_stage_model."
OTHER = {name: tensor + 0.01 for name, tensor in ldm_tensors().items()}  # another VAE, in a model's names
VAE = {name: tensor for name, tensor in OTHER.items() if name.startswith(PREFIX)}
EXTRAS = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.zeros(()), "epoch": torch.zeros(())}


def bare(prefix: str) -> dict[str, Tensor]:
    return {prefix + name.removeprefix(PREFIX): tensor for name, tensor in VAE.items()}


def in_diffusers(old: bool) -> dict[str, Tensor]:
    spelled = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"} if old else {}
    tensors = {}
    for weight in weights(TINY):
        if weight.part in VAE_PARTS:
            name = weight.diffusers.removeprefix("vae/")
            for new, former in spelled.items():
                name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
            tensors[name] = VAE[weight.ldm].reshape(weight.shape).contiguous()
    return tensors


def lightning(path: Path) -> Path:
    torch.save({"state_dict": bare("") | EXTRAS, "epoch": 3, "global_step": 5}, path.with_suffix(".ckpt"))
    return path.with_suffix(".ckpt")


def written(tensors: dict[str, Tensor]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        save_file(tensors, path)
        return path

    return write


def folder(config: dict[str, Any] | None) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path = path.with_suffix("")
        path.mkdir()
        save_file(in_diffusers(old=True), path / "diffusion_pytorch_model.safetensors")
        if config is not None:
            (path / "config.json").write_text(json.dumps(config))
        return path

    return write


def whole_folder(path: Path) -> Path:
    return write_diffusers(path.with_suffix(""), TINY, OTHER)


MATRICES = {
    name: t.flatten(1) if t.shape[2:] == (1, 1) and ".attn_1." in name else t for name, t in bare("").items()
}
FORMS = {
    "LDM's names": written(bare("")),
    "with a prefix": written(bare(PREFIX)),
    "with ComfyUI's prefix": written(bare("vae.")),
    "of a training": lightning,
    "matrices for convolutions": written(MATRICES),
    "a whole checkpoint": written(OTHER),
    "diffusers, new names": written(in_diffusers(old=False)),
    "diffusers, old names": written(in_diffusers(old=True)),
    "diffusers' folder": folder(to_folder(TINY, 64)["vae/config.json"]),
    "diffusers' folder without config": folder(None),
    "a model's folder": whole_folder,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_takes_the_place_of_the_models_own(tmp_path: Path, tiny_model: Path, form: str) -> None:
    path = FORMS[form](tmp_path / "vae.safetensors")
    own, files = open_model(tiny_model), open_with_addons(tiny_model, vae=str(path))
    for weight in weights(TINY):
        expected = OTHER[weight.ldm].reshape(weight.shape) if weight.part in VAE_PARTS else own.read(weight)
        assert torch.equal(files.read(weight), expected), weight.name
    state = files.load("decoder", "cpu", torch.float32).state_dict()
    assert torch.equal(state["conv_in.weight"], OTHER[f"{PREFIX}decoder.conv_in.weight"])
    assert files.hash() == own.hash()  # the model's, whatever decodes


def without_one(path: Path, form: str) -> Path:
    """A model that comes without its VAE."""
    if form == "folder":
        folder = write_diffusers(path, TINY, tokenizer=tiny_tokenizer())
        shutil.rmtree(folder / "vae")
        return folder
    tensors = {name: tensor for name, tensor in ldm_tensors().items() if not name.startswith(PREFIX)}
    return write_ldm(path.with_suffix(".safetensors"), tensors, self_contained())


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_model_without_one_is_given_one(tmp_path: Path, tiny_model: Path, form: str) -> None:
    bare_model = without_one(tmp_path / "bare", form)
    with pytest.raises(CheckpointError, match="--vae FILE"):
        open_with_addons(bare_model)
    files = open_with_addons(bare_model, vae=str(tiny_model))
    whole = open_model(tiny_model)
    for weight in whole.stored:
        assert torch.equal(files.read(weight), whole.read(weight))
    assert set(files.stored) == set(whole.stored)
    another = write_ldm(tmp_path / "other.safetensors", OTHER, self_contained())
    other = open_with_addons(bare_model, vae=str(another))
    assert files.hash() == other.hash() != whole.hash()  # the model's own file, not the VAE's
    convert(files, tmp_path / "baked.safetensors", "ldm")
    baked = open_model(tmp_path / "baked.safetensors")
    assert all(torch.equal(baked.read(weight), whole.read(weight)) for weight in whole.stored)
    picture = load(str(bare_model), vae=str(tiny_model), device="cpu", dtype="float32")
    reference = load(str(tiny_model), device="cpu", dtype="float32")
    words = {"seed": 1, "steps": 2, "width": 64, "height": 64}
    assert picture.txt2img("a dog", **words) == reference.txt2img("a dog", **words)


def test_a_part_of_a_vae_is_damage_even_where_another_is_given(tmp_path: Path, tiny_model: Path) -> None:
    tensors = ldm_tensors()
    del tensors["first_stage_model.decoder.conv_in.weight"]
    broken = write_ldm(tmp_path / "broken.safetensors", tensors, self_contained())
    with pytest.raises(CheckpointError, match=r"lacks first_stage_model\.decoder\.conv_in\.weight"):
        open_with_addons(broken, vae=str(tiny_model))


def test_sdxs_folders_hold_a_whole_vae_beside_a_tiny_one(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "sdxs", TINY, tokenizer=tiny_tokenizer())
    (folder / "vae").rename(folder / "vae_large")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderTiny
    torch.manual_seed(0)
    eights = (8,) * 4
    AutoencoderTiny(
        encoder_block_out_channels=eights, decoder_block_out_channels=eights, latent_channels=4
    ).save_pretrained(folder / "vae")
    files = open_model(folder)
    whole = ldm_tensors()
    assert all(
        torch.equal(files.read(weight), whole[weight.ldm].reshape(weight.shape)) for weight in files.stored
    )
    pipeline = load(str(folder), device="cpu")
    assert pipeline.taesd is not None
    assert pipeline.tiny.encoder is not None
    assert pipeline.tiny.name == "vae"
    shutil.rmtree(folder / "vae_large")
    with pytest.raises(CheckpointError, match="--vae FILE"):
        open_model(folder)


def test_it_can_be_baked_in(tmp_path: Path, tiny_model: Path) -> None:
    save_file(VAE, tmp_path / "vae.safetensors")
    convert(
        open_with_addons(tiny_model, vae=str(tmp_path / "vae.safetensors")),
        tmp_path / "new.safetensors",
        "ldm",
    )
    baked = open_model(tmp_path / "new.safetensors")
    for weight in weights(TINY):
        if weight.part in VAE_PARTS:
            assert torch.equal(baked.read(weight), VAE[weight.ldm].reshape(weight.shape))
    noted = json.loads(baked.metadata["sdscratch.provenance"])["vae"]
    assert noted == {
        "name": "vae.safetensors",
        "hash": open_vae(str(tmp_path / "vae.safetensors"), TINY.autoencoder).hash(),
    }


WIDE = {f"{PREFIX}decoder.conv_in.weight": torch.zeros(32, 16, 3, 3)}  # 16 channels a latent: SD 3's, Flux'
ASYMMETRIC = {"decoder.condition_encoder.layers.0.weight": torch.zeros(4, 4, 3, 3)}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (written(dict(list(bare("").items())[:-1])), "no whole autoencoder: .* is missing; it is incomplete"),
        (written(VAE | WIDE), r"is \[32, 16, 3, 3\], not \[32, 4, 3, 3\]"),
        (written(in_diffusers(old=False) | ASYMMETRIC), r"holds decoder\.condition_encoder.* does not have"),
        (written({"conditioner.embedders.0.x": torch.zeros(1)} | VAE), "is an SDXL model"),
        (written({"1.conv.0.weight": torch.zeros(64, 64, 3, 3)}), "is a TAESD autoencoder"),
        (written({"emb_params": torch.zeros(1, 768)}), "is a textual inversion embedding"),
        (written({"something": torch.zeros(1)}), "holds no VAE"),
        (folder({"_class_name": "AutoencoderKL", "scaling_factor": 0.13025}), "VAE for SDXL"),
        (folder({"_class_name": "AsymmetricAutoencoderKL"}), "an AsymmetricAutoencoderKL"),
        (lambda path: path, "no such file"),
    ],
)  # fmt: skip
def test_what_is_no_vae_for_the_model_is_named(
    tmp_path: Path, tiny_model: Path, write: Callable[[Path], Path], message: str
) -> None:
    path = write(tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_with_addons(tiny_model, vae=str(path))
    assert "\n" not in str(caught.value)


def test_other_latents_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    write_ldm(tmp_path / "smaller.safetensors", ldm_tensors(SMALLER), self_contained(SMALLER))
    with pytest.raises(CheckpointError, match=r"pixels a latent position is 4, the model's 8"):
        open_with_addons(tiny_model, vae=str(tmp_path / "smaller.safetensors"))


@pytest.mark.parametrize("name", ["sdxl_vae", "fixed-SDXL.vae", "xl_vae", "vae-xl-fp16"])
def test_sdxls_is_known_by_its_name(tmp_path: Path, tiny_model: Path, name: str) -> None:
    path = written(VAE)(tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="VAE for SDXL by its name"):
        open_with_addons(tiny_model, vae=str(path))
    for other in ("vae-ft-mse-840000", "xlarge", "axl"):
        open_with_addons(tiny_model, vae=str(written(VAE)(tmp_path / f"{other}.safetensors")))
