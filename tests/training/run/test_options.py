"""Options: every one can be typed, written and read back; their file repeats them."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdscratch.errors import UsageError
from sdscratch.models.config import SD1, ModelConfig
from sdscratch.settings import choices_of
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.run.config_file import differences, read_config, write_config
from sdscratch.training.run.curve import draw_curve, ticks
from sdscratch.training.run.options import ARCHITECTURES, AutoencoderOptions, DiffusionOptions
from sdscratch.training.run.run_folder import collect
from sdscratch.training.tasks.architectures import architecture, fitted

LEAST = {"data": "photos", "output": "run", "max_train_steps": 3}
FULL = DiffusionOptions(
    **LEAST,
    model="a\\b \"c\" 'd'\n\x7f 🦊.safetensors",
    learning_rate=1e-5,
    use_ema=False,
    random_flip=True,
    snr_gamma=5.0,
    prediction_type="v",
    validation_prompt=("a dog", 'say "hi"'),
    workers=2,
)


@pytest.mark.parametrize("options", [DiffusionOptions(**LEAST), FULL])
def test_what_is_written_is_read_back(options: DiffusionOptions, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_config(path, "diffusion", options)
    assert DiffusionOptions(**read_config(path, "diffusion", DiffusionOptions)) == options
    assert tomllib.loads(path.read_text())["train"] == "diffusion"


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    options = DiffusionOptions(**LEAST, validation_prompt=(text,))
    write_config(path, "diffusion", options)
    assert read_config(path, "diffusion", DiffusionOptions)["validation_prompt"] == (text,)


def test_what_differs_is_named() -> None:
    old = {each.name: getattr(FULL, each.name) for each in fields(FULL)}
    new = replace(FULL, learning_rate=1e-4, workers=None)
    assert differences(old, FULL) == []
    assert differences(old, new) == ["learning_rate from 1e-05 to 0.0001", "workers from 2 to nothing"]


def test_a_run_that_goes_on_takes_its_own_options_and_what_is_typed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    began = AutoencoderOptions(data="photos", output="elsewhere", max_train_steps=3, seed=7)
    write_config(run / "config.toml", "autoencoder", began)
    typed = {"output": str(run), "max_train_minutes": 2.0}
    options, folder = collect("autoencoder", AutoencoderOptions, typed, None, "latest")
    assert options == replace(began, output=str(run), max_train_steps=None, max_train_minutes=2.0)
    assert (folder.resumes, folder.checkpoint, folder.path) == (True, None, run)
    folder.refuse_other()
    with pytest.raises(UsageError, match="DATA is missing"):
        collect("autoencoder", AutoencoderOptions, typed, None, None)
    with pytest.raises(UsageError, match="of a `train autoencoder`"):
        collect("diffusion", DiffusionOptions, typed, None, "latest")


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    typed = {**LEAST, "output": str(tmp_path / "run")}
    _, folder = collect("autoencoder", AutoencoderOptions, typed, None, None)
    folder.refuse_other()
    (tmp_path / "run").mkdir()
    folder.refuse_other()
    (tmp_path / "run" / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        folder.refuse_other()


def test_every_weight_of_the_autoencoders_loss_is_a_term_of_it() -> None:
    from sdscratch.training.tasks.autoencoder import LOSS_WEIGHTS, TERMS

    weights = AutoencoderOptions(**LEAST).weights()
    assert weights.keys() == TERMS.keys()
    assert {name: weight for name, weight in weights.items() if weight} == LOSS_WEIGHTS


def test_choices_are_found_in_optional_types_too() -> None:
    assert choices_of(DiffusionOptions.__annotations__["vae"]) == ()
    with pytest.raises(UsageError, match="--prediction-type is 'w', but must be one of epsilon, v"):
        DiffusionOptions(**LEAST, prediction_type="w")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_fit_any_tokenizer_and_autoencoder(name: str) -> None:
    tokenizer = Tokenizer.from_merges([("d", "o")], length=20)
    autoencoder = replace(SD1.autoencoder, latent_channels=8)
    made = fitted(architecture(name), autoencoder, tokenizer)
    assert (made.text.vocabulary, made.text.length, made.unet.latent_channels) == (515, 20, 8)
    assert made.text.width == made.unet.context
    assert made.autoencoder == autoencoder
    assert all(
        width * m % made.unet.heads == 0 for m in made.unet.multipliers for width in [made.unet.channels]
    )


def test_a_shape_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shape.toml"
    path.write_text("[unet]\nchannels = 64\nmultipliers = [1, 2]\nattends = [false, true]\n")
    assert architecture(str(path)) == replace(
        ModelConfig(), unet=replace(SD1.unet, channels=64, multipliers=(1, 2), attends=(False, True))
    )
    path.write_text("[unet]\nwidth = 64\n")
    with pytest.raises(UsageError, match="UNetConfig has no field width"):
        architecture(str(path))
    for wrong in ("huge", str(tmp_path / "none.toml")):
        with pytest.raises(UsageError):
            architecture(wrong)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 12), (0, 123456), (0.031, 0.047), (0, 3e-5)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 10
    assert all(low <= tick <= high for tick in found)
    assert all(len(f"{tick:g}".strip("0.").replace(".", "").lstrip("0")) <= 8 for tick in found)


@pytest.mark.parametrize("count", [1, 2, 5000])
def test_a_curve_is_drawn_of_any_number_of_steps(count: int, tmp_path: Path) -> None:
    losses = [1.0 / (1 + step) for step in range(count)]
    draw_curve(tmp_path / "loss.png", range(1, count + 1), losses, "loss")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
